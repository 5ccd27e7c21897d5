require 'net/http'

class Rates
  # Net::HTTP.get(URI('https://rates.example'))
  def one
    http = Net::HTTP.new('rates.example', 443)
    http.open_timeout = 2
    http.read_timeout = 5
    http.get('/')
  end

  def started
    Net::HTTP.start('rates.example', 443, use_ssl: true, read_timeout: 5) { |http| http.get('/') }
  end

  def party
    HTTParty.get('https://rates.example', timeout: 5)
  end

  def connection
    Faraday.new(url: 'https://rates.example') do |f|
      f.options.timeout = 5
    end
  end

  def wrapped
    Timeout.timeout(5) do
      Net::HTTP.get(URI('https://rates.example'))
    end
  end

  def text = "Net::HTTP.get(uri)"
end
