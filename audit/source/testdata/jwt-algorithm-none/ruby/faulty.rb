class Tokens
  def verify(token)
    JWT.decode(token, nil, true, { algorithm: 'none' }) # want
  end

  def issue(payload)
    JWT.encode payload, nil, 'none' # want
  end
end
