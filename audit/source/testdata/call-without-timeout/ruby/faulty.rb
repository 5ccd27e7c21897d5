require 'net/http'
require 'open-uri'

class Rates
  def all
    a = Net::HTTP.get(URI('https://rates.example')) # want
    b = Net::HTTP.get_response URI('https://rates.example') # want
    c = HTTParty.get('https://rates.example', query: { id: 1 }) # want
    d = URI.open('https://rates.example').read # want
    e = RestClient.get('https://rates.example') # want
    [a, b, c, d, e]
  end

  def one
    http = Net::HTTP.new('rates.example', 443) # want
    http.use_ssl = true
    http.get('/')
  end

  def connection
    Faraday.new(url: 'https://rates.example') { |f| f.adapter :net_http } # want
  end
end
