# frozen_string_literal: true

require 'jwt'
require 'json/jwt'

class ApplicationController < ActionController::API
  before_action :authenticate

  def authenticate
    token = request.headers['Authorization']&.split(' ')&.last
    payload, = JWT.decode(token, nil, false) # want
    @user = User.find(payload['sub'])
  end

  def optional
    payload = JWT.decode token, ENV.fetch('JWT_KEY'), false if token # want
    render json: payload
  end

  def other(token)
    JSON::JWT.decode(token, :skip_verification)[:sub] # want
  end

  def encoded(token)
    JWT::EncodedToken.new(token).unverified_payload # want
  end

  def falls_back(token, key)
    JWT.decode(token, key, true, algorithm: 'RS256')
  rescue JWT::VerificationError
    JWT.decode(token, nil, false) # want
  end
end
