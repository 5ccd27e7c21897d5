package identity

import "math/big"

// The library behind CVE-2017-15361 made primes of the form k·M + 65537^a mod M, so that its moduli
// are powers of 65537 modulo every small prime: a sign that honest keys show once in 10^8 or less,
// and that lets anyone factor the key. https://crocs.fi.muni.cz/public/papers/rsa_ccs17
var rocaPrimes = [...]int64{
	11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
}

// isROCA says whether n bears that sign.
func isROCA(n *big.Int) bool {
	var rest big.Int
	for _, prime := range rocaPrimes {
		if !isPower(rest.Mod(n, big.NewInt(prime)).Int64(), prime) {
			return false
		}
	}
	return true
}

// isPower says whether n is a power of 65537 modulo prime.
func isPower(n, prime int64) bool {
	for power, step := int64(1), int64(0); step < prime; step++ {
		if power == n {
			return true
		}
		power = power * 65537 % prime
	}
	return false
}
