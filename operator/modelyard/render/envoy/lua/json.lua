-- Finds the top-level "model" of a JSON object without building a tree.
--
-- Everything outside strings is checked against the grammar of RFC 8259, so a broken body is refused before it can
-- wake a model. Strings are skipped with memchr, which is what makes long prompts cheap; their escapes and their
-- encoding are left to the engine, except in "model" itself.

local byte, char, find, format, sub = string.byte, string.char, string.find, string.format, string.sub

-- Objects and arrays inside each other. Tool schemas need about 20; Python's parser gives up near 1000.
local MAX_DEPTH = 256

-- Bytes of "model" when every letter is written as an escape of six.
local MAX_ESCAPED = 30

local BROKEN = 'The request body is not valid JSON.'
local NOT_OBJECT = 'The request body must be a JSON object.'
local MISSING = 'The request body must have a field "model".'
local NOT_STRING = 'The field "model" must be a non-empty string.'
local DUPLICATE = 'The field "model" must occur only once.'
local ESCAPED = 'The name of the field "model" must be written without escapes.'
local TOO_DEEP = format('The request body is nested more than %d levels deep.', MAX_DEPTH)

-- Code points of the Basic Multilingual Plane that are no characters but halves of a pair (RFC 8259, section 7).
local HIGH_SURROGATE, LOW_SURROGATE, AFTER_SURROGATES = 0xD800, 0xDC00, 0xE000

local SIMPLE_ESCAPES = {
  ['"'] = '"', ['\\'] = '\\', ['/'] = '/', b = '\b', f = '\f', n = '\n', r = '\r', t = '\t',
}

local function utf8(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- The text of a JSON string without its quotes, or nil if an escape is wrong.
local function unescape(raw)
  if not find(raw, '\\', 1, true) then return raw end
  local parts, position = {}, 1
  while true do
    local slash = find(raw, '\\', position, true)
    if not slash then break end
    parts[#parts + 1] = sub(raw, position, slash - 1)
    local kind = sub(raw, slash + 1, slash + 1)
    if kind == 'u' then
      local digits = string.match(raw, '^%x%x%x%x', slash + 2)
      if not digits then return nil end
      local code = tonumber(digits, 16)
      position = slash + 6
      if code >= LOW_SURROGATE and code < AFTER_SURROGATES then return nil end
      if code >= HIGH_SURROGATE and code < LOW_SURROGATE then
        local second = string.match(raw, '^\\u(%x%x%x%x)', position)
        local low = second and tonumber(second, 16)
        if not low or low < LOW_SURROGATE or low >= AFTER_SURROGATES then return nil end
        code = 0x10000 + (code - HIGH_SURROGATE) * 0x400 + (low - LOW_SURROGATE)
        position = position + 6
      end
      parts[#parts + 1] = utf8(code)
    else
      local replacement = SIMPLE_ESCAPES[kind]
      if not replacement then return nil end
      parts[#parts + 1] = replacement
      position = slash + 2
    end
  end
  parts[#parts + 1] = sub(raw, position)
  return table.concat(parts)
end

-- Whether the bytes are UTF-8 (the table of RFC 3629, section 4).
local function is_utf8(text)
  local position, length = 1, #text
  while position <= length do
    local c = byte(text, position)
    local more, low, high = 0, 0x80, 0xBF
    if c < 0x80 then more = 0
    elseif c >= 0xC2 and c <= 0xDF then more = 1
    elseif c >= 0xE0 and c <= 0xEF then
      more = 2
      if c == 0xE0 then low = 0xA0 elseif c == 0xED then high = 0x9F end
    elseif c >= 0xF0 and c <= 0xF4 then
      more = 3
      if c == 0xF0 then low = 0x90 elseif c == 0xF4 then high = 0x8F end
    else return false end
    for offset = 1, more do
      local follower = byte(text, position + offset)
      if not follower or follower < low or follower > high then return false end
      low, high = 0x80, 0xBF
    end
    position = position + 1 + more
  end
  return true
end

-- Position of the quote that closes the string opened at `open`.
local function string_end(text, open)
  local close = open
  while true do
    close = find(text, '"', close + 1, true)
    if not close then return nil end
    local slash = close - 1
    while byte(text, slash) == 92 do slash = slash - 1 end
    if (close - slash) % 2 == 1 then return close end
  end
end

local function is_digit(c)
  return c and c >= 48 and c <= 57
end

local function digits_end(text, position)
  while is_digit(byte(text, position)) do position = position + 1 end
  return position
end

-- Position after the number at `position`, or nil.
local function number_end(text, position)
  if byte(text, position) == 45 then position = position + 1 end
  local c = byte(text, position)
  if not is_digit(c) then return nil end
  position = c == 48 and position + 1 or digits_end(text, position)
  if byte(text, position) == 46 then
    if not is_digit(byte(text, position + 1)) then return nil end
    position = digits_end(text, position + 1)
  end
  c = byte(text, position)
  if c == 101 or c == 69 then
    c = byte(text, position + 1)
    if c == 43 or c == 45 then position = position + 1 end
    if not is_digit(byte(text, position + 1)) then return nil end
    position = digits_end(text, position + 1)
  end
  return position
end

local LITERALS = { [102] = 'false', [110] = 'null', [116] = 'true' }

-- Position after the number or literal at `position`, or nil. What follows is for the caller to check.
local function scalar_end(text, position)
  local literal = LITERALS[byte(text, position)]
  if not literal then return number_end(text, position) end
  local after = position + #literal
  return sub(text, position, after - 1) == literal and after or nil
end

-- What the grammar allows next.
local VALUE, VALUE_OR_END, KEY, KEY_OR_END, COLON, COMMA_OR_END = 1, 2, 3, 4, 5, 6

local ASKS = '"include_usage":true'

-- The first and last position of the value of the top-level "model", between its quotes, whether the top-level
-- "stream" is true, whether "stream_options" asks for "include_usage", the bytes of files inside the body, and the
-- first and last position of what must become which text so that the usage is asked for (nothing: the text is put
-- before the first position; no text: the body is wrong there, which is for the target to say); or nil and a sentence.
local function find_model(text)
  local position, depth, expected = 1, 0, VALUE
  local is_object, model_key, first, last = {}, false, nil, nil
  local stream_key, streamed, inline = false, false, 0
  local options_key, in_options, usage_key, wants_usage = false, false, false, false
  local edit_first, edit_last, edit_text = nil, nil, nil
  while true do
    local c = byte(text, position)
    if not c then return nil, BROKEN end
    if c == 32 or c == 10 or c == 13 or c == 9 then
      position = position + 1
    elseif expected == COLON then
      if c ~= 58 then return nil, BROKEN end
      expected, position = VALUE, position + 1
    elseif c == 44 then
      if expected ~= COMMA_OR_END then return nil, BROKEN end
      expected, position = is_object[depth] and KEY or VALUE, position + 1
    elseif c == 125 or c == 93 then
      local object = c == 125
      if expected ~= COMMA_OR_END and expected ~= (object and KEY_OR_END or VALUE_OR_END)
        or is_object[depth] ~= object then return nil, BROKEN end
      depth, expected, position = depth - 1, COMMA_OR_END, position + 1
      if depth == 0 then break end
    elseif expected == COMMA_OR_END then
      return nil, BROKEN
    elseif c == 34 then
      local close = string_end(text, position)
      if not close then return nil, BROKEN end
      if expected == KEY or expected == KEY_OR_END then
        if depth == 1 then
          local key = sub(text, position + 1, close - 1)
          stream_key = key == 'stream'
          options_key = key == 'stream_options'
          if key == 'model' then
            if first then return nil, DUPLICATE end
            model_key = true
          elseif #key <= MAX_ESCAPED and find(key, '\\', 1, true) and unescape(key) == 'model' then
            return nil, ESCAPED
          end
        elseif depth == 2 and in_options then
          usage_key = sub(text, position + 1, close - 1) == 'include_usage'
        end
        expected = COLON
      else
        if depth == 0 then return nil, NOT_OBJECT end
        if model_key then first, last, model_key = position + 1, close - 1, false end
        -- A data URL (RFC 2397): an image costs as many tokens as it has tiles, not as its bytes would be as text.
        if byte(text, position + 1) == 100 and sub(text, position + 1, position + 5) == 'data:' then
          inline = inline + close - position
        end
        if (options_key and depth == 1) or (usage_key and in_options and depth == 2) then edit_text = nil end
        expected = COMMA_OR_END
      end
      position = close + 1
    elseif expected == KEY or expected == KEY_OR_END then
      return nil, BROKEN
    elseif model_key then
      return nil, NOT_STRING
    elseif c == 123 or c == 91 then
      if depth == 0 and c == 91 then return nil, NOT_OBJECT end
      depth = depth + 1
      if depth > MAX_DEPTH then return nil, TOO_DEEP end
      is_object[depth] = c == 123
      if depth == 1 then
        edit_first, edit_last, edit_text = position + 1, position, '"stream_options":{' .. ASKS .. '},'
      elseif depth == 2 then
        in_options = options_key and c == 123
        if in_options then
          local rest = byte(text, find(text, '[^ \n\r\t]', position + 1) or position)
          edit_first, edit_last, edit_text = position + 1, position, rest == 125 and ASKS or ASKS .. ','
        elseif options_key then
          edit_text = nil
        end
      elseif depth == 3 and in_options and usage_key then
        edit_text = nil
      end
      expected, position = c == 123 and KEY_OR_END or VALUE_OR_END, position + 1
    else
      -- Prompts may come as long lists of token numbers, so plain integers have a path of their own.
      local start, first_byte = position, c
      while c and c >= 48 and c <= 57 do
        position = position + 1
        c = byte(text, position)
      end
      if position == start or c == 46 or c == 101 or c == 69 or first_byte == 48 then
        position = scalar_end(text, start)
        if not position then return nil, BROKEN end
        if stream_key and depth == 1 and first_byte == 116 then streamed = true end
      end
      if depth == 0 then return nil, NOT_OBJECT end
      if in_options and depth == 2 then
        if usage_key then
          wants_usage = first_byte == 116
          edit_first, edit_last, edit_text = start, position - 1, 'true'
        end
      elseif options_key and depth == 1 then
        edit_first, edit_last = start, position - 1
        edit_text = first_byte == 110 and '{' .. ASKS .. '}' or nil
      end
      expected = COMMA_OR_END
    end
  end
  if find(text, '[^ \n\r\t]', position) then return nil, BROKEN end
  if not first then return nil, MISSING end
  return first, last, streamed, wants_usage, inline, edit_first, edit_last, edit_text
end
