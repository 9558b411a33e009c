-- SHA-256 (FIPS 180-4), with LuaJIT's operations on 32 bits. API keys are known here by their digests only.

local sha256
do
  local band, bnot, bxor, lshift = bit.band, bit.bnot, bit.bxor, bit.lshift
  local ror, rshift, tobit, tohex = bit.ror, bit.rshift, bit.tobit, bit.tohex

  -- The first 32 bits of the fractional parts of the cube roots of the first 64 primes (section 4.2.2), and of the
  -- square roots of the first 8 (section 5.3.3).
  local ROUND, START = {}, {}
  local function fraction(root) return tobit(math.floor(root % 1 * 2 ^ 32)) end
  local number = 2
  while #ROUND < 64 do
    local prime = true
    for divisor = 2, math.floor(number ^ 0.5) do prime = prime and number % divisor ~= 0 end
    if prime then
      ROUND[#ROUND + 1] = fraction(number ^ (1 / 3))
      if #START < 8 then START[#START + 1] = fraction(number ^ 0.5) end
    end
    number = number + 1
  end

  local words = {}

  -- The eight words of the state after the 64 bytes at `first`.
  local function digest_block(text, first, h1, h2, h3, h4, h5, h6, h7, h8)
    for index = 1, 16 do
      local a, b, c, d = byte(text, first + index * 4 - 4, first + index * 4 - 1)
      words[index] = bit.bor(lshift(a, 24), lshift(b, 16), lshift(c, 8), d)
    end
    for index = 17, 64 do
      local s, t = words[index - 15], words[index - 2]
      words[index] = tobit(words[index - 16] + words[index - 7]
        + bxor(ror(s, 7), ror(s, 18), rshift(s, 3)) + bxor(ror(t, 17), ror(t, 19), rshift(t, 10)))
    end
    local a, b, c, d, e, f, g, h = h1, h2, h3, h4, h5, h6, h7, h8
    for index = 1, 64 do
      local s = tobit(h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g))
        + ROUND[index] + words[index])
      local t = tobit(bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c)))
      a, b, c, d, e, f, g, h = tobit(s + t), a, b, c, tobit(d + s), e, f, g
    end
    return tobit(h1 + a), tobit(h2 + b), tobit(h3 + c), tobit(h4 + d),
      tobit(h5 + e), tobit(h6 + f), tobit(h7 + g), tobit(h8 + h)
  end

  -- The digest of a text of less than 2^28 bytes, in lower-case hexadecimal.
  function sha256(text)
    local length = #text
    local size = ''
    for shift = 24, 0, -8 do size = size .. char(band(rshift(length * 8, shift), 255)) end
    local padded = text .. '\128' .. string.rep('\0', (55 - length) % 64 + 4) .. size
    local a, b, c, d, e, f, g, h = unpack(START)
    for first = 1, #padded, 64 do
      a, b, c, d, e, f, g, h = digest_block(padded, first, a, b, c, d, e, f, g, h)
    end
    return tohex(a) .. tohex(b) .. tohex(c) .. tohex(d) .. tohex(e) .. tohex(f) .. tohex(g) .. tohex(h)
  end
end
