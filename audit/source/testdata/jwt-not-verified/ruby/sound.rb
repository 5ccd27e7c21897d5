# JWT.decode(token, nil, false) is what we had
class Tokens
  HELP = "never JWT.decode(token, nil, false)"
  TEXT = <<~TEXT
    JWT.decode(token, nil, false)
    don't
  TEXT

  def verify(token, key)
    JWT.decode(token, key, true, { algorithm: 'RS256', verify_iss: true, iss: 'https://acme.example' })
  end

  def by_issuer(token)
    claims, = JWT.decode(token, nil, false)
    key = keys.fetch(claims['iss'])
    JWT.decode token, key, true, algorithm: 'RS256'
  end

  def encoded(token, key)
    t = JWT::EncodedToken.new(token)
    key = keys[t.unverified_payload['iss']]
    t.verify!(signature: { algorithm: 'RS256', key: key })
    t.payload
  end

  def ratio(a, b) = a / b # / not a pattern

  def split?(line)
    line =~ /JWT.decode\(token, nil, false\)/ ? %w[a b] : :none
  end

  private

  def keys
    @keys ||= { 'x' => nil }
  end
end

=begin
JWT.decode(token, nil, false)
=end
__END__
JWT.decode(token, nil, false)
