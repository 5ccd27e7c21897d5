# JWT_SECRET = ENV['JWT_SECRET'] || 'dev-secret'
JWT_SECRET = ENV.fetch('JWT_SECRET')
SESSION_SECRET = ENV['SESSION_SECRET'] || raise('SESSION_SECRET is not set')
SECRET_PATH = ENV.fetch('SECRET_PATH', '/run/secrets/key')
EMPTY_SECRET = ENV.fetch('EMPTY_SECRET', '')
LABELS = { secret: 'Secret', secret_key: 'Secret key' }.freeze
TEXT = "JWT_SECRET = 'in a string'"
HELP = <<~HELP
  JWT_SECRET = 'here'
HELP

def token(payload, key)
  JWT.encode(payload, key, 'HS256')
end

def known?(secret) = secret == 'hunter2hunter2'
