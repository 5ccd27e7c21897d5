require 'sinatra/base'

JWT_SECRET = ENV['JWT_SECRET'] || 'dev-secret' # want
SESSION_SECRET = ENV.fetch('SESSION_SECRET', 'changeme') # want
SIGNING_KEY = ENV.fetch('SIGNING_KEY') { 'in-a-block' } # want
HMAC_SECRET = 'my$ecretK3y' # want

class App < Sinatra::Base
  set :session_secret, 'sinatra-secret' # want
  use Rack::Session::Cookie, key: 'rack.session', secret: 'rack-secret' # want
end

Rails.application.config.secret_key_base = 'd3adb33fd3adb33f' # want

def token(payload)
  JWT.encode(payload, 's3cr3t', 'HS256') # want
end
