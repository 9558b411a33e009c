-- Finds the top-level "model" of a JSON object, and what else the gateway must know, without building a tree.
--
-- Everything outside strings is checked against the grammar of RFC 8259, so a broken body is refused before it can
-- wake a model. Strings are skipped with memchr, which is what makes long prompts cheap; their escapes and their
-- encoding are left to the engine, except in "model" itself.

-- How far garbage may grow before it is collected, in percent of what is in use. In use are a few hundred KiB, and
-- LuaJIT's default of 200 begins a collection at nearly every request: with 400 a prompt of 300 KB takes a fifth less
-- processor time.
collectgarbage('setpause', 400)

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

-- Bytes of a body that are looked at together. LuaJIT maps new memory for every string of 128 KiB or more, and the first
-- touch of each of its pages costs more than all that is done with it here.
local WINDOW = 65536
-- Bytes left in a window when the next is read, so that only texts are divided: longer numbers are taken for broken, and
-- longer names for unknown.
local MARGIN = 8192

-- Top-level fields that a conversation or a prompt stands in.
local PROMPTS = { input = true, messages = true, prompt = true }

local ASKS = '"include_usage":true'

-- The texts that ask for the usage of a stream, by where they are put: before the first field of the body; into
-- "stream_options" that are empty; before the first field of those; in the place of what they say; in the place of null.
local IN_BODY, IN_EMPTY, IN_OPTIONS, AS_VALUE, AS_OPTIONS = 1, 2, 3, 4, 5
local EDITS = { '"stream_options":{' .. ASKS .. '},', ASKS, ASKS .. ',', 'true', '{' .. ASKS .. '}' }

-- The bytes of a body from one position to another.
local function part(body, first, last)
  return body:getBytes(first - 1, last - first + 1)
end

-- What the gateway must know of a body, in a table; or nil and a sentence. Positions are those of the first and the last
-- byte, of strings between their quotes.
--   first, last: the value of the top-level "model"
--   streamed: whether the top-level "stream" is true
--   wants_usage: whether "stream_options" asks for "include_usage"
--   edit_first, edit_last, edit: what must become which of EDITS so that the usage is asked for (nothing: the text is
--     put before the first position; no edit: the body is wrong there, which is for the target to say)
--   inline: the bytes of files inside the body
--   key_first, key_last: "prompt_cache_key", if it is a string
--   prompt_first, prompt_last: the messages, the prompt or the input
--   user_first, user_last: the first of the messages whose "role" is "user"
local function scan(body)
  local size = body:length()
  -- The window begins after `base` bytes; all positions are in it, except in `found`.
  local base, text, refill = 0, '', 0
  local function read(after)
    base = after
    local length = math.min(WINDOW, size - base)
    text = body:getBytes(base, length)
    refill = base + length < size and length - MARGIN or size
  end
  read(0)
  local position, depth, expected = 1, 0, VALUE
  local is_object, found = {}, { inline = 0 }
  -- The name of the top-level field at hand; of fields inside it only what they are looked at for.
  local top, usage_key, role_key
  local in_options, in_prompt, item_first, is_user = false, false, nil, false
  while true do
    if position > refill then
      read(base + position - 1)
      position = 1
    end
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
      if in_prompt then
        if depth == 2 then
          found.prompt_last, in_prompt = base + position, false
        elseif depth == 3 and is_user then
          found.user_first, found.user_last, is_user = item_first, base + position, false
        end
      end
      depth, expected, position = depth - 1, COMMA_OR_END, position + 1
      if depth == 0 then break end
    elseif expected == COMMA_OR_END then
      return nil, BROKEN
    elseif c == 34 then
      local first = base + position + 1
      local close = string_end(text, position)
      local whole = close
      -- A data URL (RFC 2397): an image costs as many tokens as it has tiles, not as its bytes would be as text.
      local is_data = byte(text, position + 1) == 100 and sub(text, position + 1, position + 5) == 'data:'
      while not close do
        if base + #text >= size then return nil, BROKEN end
        -- Of backslashes at the end of the window it only counts whether their number is even.
        local slash = #text
        while byte(text, slash) == 92 do slash = slash - 1 end
        read(base + #text - (#text - slash) % 2)
        close = string_end(text, 0)
      end
      local last = base + close - 1
      if expected == KEY or expected == KEY_OR_END then
        if depth == 1 then
          top = whole and sub(text, position + 1, close - 1)
          if top == 'model' then
            if found.first then return nil, DUPLICATE end
          elseif top and #top <= MAX_ESCAPED and find(top, '\\', 1, true) and unescape(top) == 'model' then
            return nil, ESCAPED
          end
        elseif depth == 2 and in_options then
          usage_key = whole and sub(text, position + 1, close - 1) == 'include_usage'
        elseif depth == 3 and in_prompt and not found.user_first then
          role_key = whole and sub(text, position + 1, close - 1) == 'role'
        end
        expected = COLON
      else
        if depth == 0 then return nil, NOT_OBJECT end
        if is_data then found.inline = found.inline + last - first + 2 end
        if usage_key and in_options and depth == 2 then found.edit = nil end
        if depth == 1 then
          if top == 'model' then found.first, found.last = first, last
          elseif top == 'stream_options' then found.edit = nil
          elseif top == 'prompt_cache_key' then found.key_first, found.key_last = first, last
          elseif top and PROMPTS[top] then found.prompt_first, found.prompt_last = first, last end
        elseif role_key and depth == 3 and in_prompt then
          is_user, role_key = whole and sub(text, position + 1, close - 1) == 'user', false
        end
        expected = COMMA_OR_END
      end
      position = close + 1
    elseif expected == KEY or expected == KEY_OR_END then
      return nil, BROKEN
    elseif depth == 1 and top == 'model' then
      return nil, NOT_STRING
    elseif c == 123 or c == 91 then
      if depth == 0 and c == 91 then return nil, NOT_OBJECT end
      depth = depth + 1
      if depth > MAX_DEPTH then return nil, TOO_DEEP end
      is_object[depth] = c == 123
      if depth == 1 then
        found.edit_first, found.edit_last = base + position + 1, base + position
        found.edit = IN_BODY
      elseif depth == 2 then
        in_options = top == 'stream_options' and c == 123
        if in_options then
          local rest = byte(text, find(text, '[^ \n\r\t]', position + 1) or position)
          found.edit_first, found.edit_last = base + position + 1, base + position
          found.edit = rest == 125 and IN_EMPTY or IN_OPTIONS
        elseif top == 'stream_options' then
          found.edit = nil
        end
        in_prompt = top and PROMPTS[top]
        if in_prompt then found.prompt_first, found.user_first, found.user_last = base + position, nil, nil end
      elseif depth == 3 then
        if in_options and usage_key then found.edit = nil end
        item_first, is_user, role_key = base + position, false, false
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
        if depth == 1 and top == 'stream' and first_byte == 116 then found.streamed = true end
      end
      if depth == 0 then return nil, NOT_OBJECT end
      if in_options and depth == 2 then
        if usage_key then
          found.wants_usage = first_byte == 116
          found.edit_first, found.edit_last, found.edit = base + start, base + position - 1, AS_VALUE
        end
      elseif depth == 1 and top == 'stream_options' then
        found.edit_first, found.edit_last = base + start, base + position - 1
        found.edit = first_byte == 110 and AS_OPTIONS or nil
      end
      expected = COMMA_OR_END
    end
  end
  while true do
    if find(text, '[^ \n\r\t]', position) then return nil, BROKEN end
    if base + #text >= size then break end
    read(base + #text)
    position = 1
  end
  if not found.first then return nil, MISSING end
  return found
end
