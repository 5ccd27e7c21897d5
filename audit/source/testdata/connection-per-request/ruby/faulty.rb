class UsersController < ApplicationController
  def index
    conn = PG.connect(host: 'db', password: 'hunter2') # want
    render json: conn.exec('select * from users').to_a
  end

  private

  def cache
    Redis.new(host: 'cache') # want
  end
end

get '/orders' do
  client = Mysql2::Client.new host: 'db' # want
  client.query('select 1').to_a.to_json
end
