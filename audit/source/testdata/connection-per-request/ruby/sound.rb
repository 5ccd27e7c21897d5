REDIS = Redis.new(host: 'cache')
POOL = ConnectionPool.new(size: 5) { PG.connect(host: 'db') }

class UsersController < ApplicationController
  # PG.connect(host: 'db')
  def index
    rows = POOL.with { |conn| conn.exec("select 'PG.connect'") }
    render json: rows.to_a if REDIS.get('x')
  end

  private

  def cache
    @cache ||= Redis.new(host: 'cache')
  end
end

class Import
  def run
    PG.connect(host: 'db').exec('select 1')
  end
end
