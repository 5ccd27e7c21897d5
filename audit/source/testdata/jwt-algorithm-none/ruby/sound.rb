class Tokens
  # JWT.encode payload, nil, 'none'
  REFUSED = 'none'

  def verify(token, key)
    JWT.decode(token, key, true, { algorithms: ['RS256'] })
  end

  def style = { display: 'none', algorithm: 'none' }
end
