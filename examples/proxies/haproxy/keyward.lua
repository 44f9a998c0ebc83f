-- The action "keyward ADDRESS" asks Keyward whether a request is authorized. If the request is
-- authorized, the action sets the variable txn.keyward_allowed. If it is not, the action ends the
-- request with Keyward's response. The file haproxy.cfg in this folder uses the action.

-- Header fields that are not copied, because they belong to one connection or are set below.
local skipped_fields = {
    ["connection"] = true,
    ["content-length"] = true,
    ["expect"] = true,
    ["host"] = true,
    ["keep-alive"] = true,
    ["te"] = true,
    ["trailer"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
    ["forwarded"] = true,
}

local identity_fields = {
    "x-keyward-user",
    "x-keyward-user-id",
    "x-keyward-roles",
    "x-keyward-key-id",
    "x-keyward-application",
    "x-keyward-scopes",
}

-- Fields of Keyward's response that haproxy.cfg passes to the client: the state of the rate limit, and
-- fields for browsers and caches.
local client_variables = {
    ["ratelimit"] = "txn.keyward_limit",
    ["ratelimit-policy"] = "txn.keyward_policy",
    ["vary"] = "txn.keyward_vary",
    ["x-keyward-cache-control"] = "txn.keyward_caching",
    ["access-control-allow-origin"] = "txn.keyward_origin",
    ["access-control-allow-credentials"] = "txn.keyward_credentials",
    ["access-control-expose-headers"] = "txn.keyward_expose",
}

-- The HTTP client of HAProxy 2.6 crashes if a subrequest has as many header fields as
-- tune.http.maxhdr allows.
local max_fields = 200

local function error_body(status, code, description)
    return '{"status":"error","http_code":' .. status .. ',"error":"' .. code .. '","error_description":"'
        .. description .. '"}'
end

-- The header fields of the subrequest: the fields of the request, and fields that describe the
-- request. The second result is their number.
local function subrequest_fields(txn)
    local headers = {}
    local count = 5
    for name, values in pairs(txn.http:req_get_headers()) do
        if not skipped_fields[name] and name:sub(1, 12) ~= "x-forwarded-" then
            headers[name] = {}
            for index = 0, #values do
                table.insert(headers[name], values[index])
                count = count + 1
            end
        end
    end
    headers["x-forwarded-method"] = { txn.f:method() }
    headers["x-forwarded-uri"] = { txn.f:pathq() }
    headers["x-forwarded-host"] = { txn.f:req_fhdr("host") }
    headers["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
    headers["x-forwarded-for"] = { txn.f:src() }
    return headers, count
end

local function refuse(txn, status, headers, body)
    local reply = txn:reply { status = status }
    for name, values in pairs(headers) do
        if not skipped_fields[name] then
            for _, value in pairs(values) do
                reply:add_header(name, value)
            end
        end
    end
    reply:set_body(body)
    txn:done(reply)
end

local function refuse_with_error(txn, status, code, description)
    local headers = { ["content-type"] = { "application/json" }, ["cache-control"] = { "no-store" } }
    refuse(txn, status, headers, error_body(status, code, description))
end

-- Whether there is no decision: HAProxy itself made the response, because Keyward did not respond.
local function is_no_decision(response)
    local status = response.status
    if status == nil or status < 200 then
        return true
    end
    local caching = response.headers["cache-control"]
    return status >= 500 and caching ~= nil and caching[0] == "no-cache"
end

core.register_action("keyward", { "http-req" }, function(txn, address)
    local url = "http://" .. address .. "/-/verify/haproxy"
    local headers, count = subrequest_fields(txn)
    if count > max_fields then
        refuse_with_error(txn, 431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "The request has too many header fields.")
        return
    end
    -- HAProxy tries four times, each for this many milliseconds.
    local response = core.httpclient():get { url = url, headers = headers, timeout = 1000 }
    local uri = response.headers and response.headers["x-keyward-uri"]
    if is_no_decision(response) then
        refuse_with_error(txn, 503, "TEMPORARILY_UNAVAILABLE", "Access cannot be checked at the moment.")
    elseif response.status ~= 200 or uri == nil then
        -- The response to a preflight of a browser has its status in a field.
        local status = response.headers["x-keyward-status"]
        response.headers["x-keyward-status"] = nil
        refuse(txn, status and tonumber(status[0]) or response.status, response.headers, response.body)
    else
        for _, name in pairs(identity_fields) do
            txn.http:req_del_header(name)
            local values = response.headers[name]
            if values ~= nil and values[0] ~= "" then
                txn.http:req_set_header(name, values[0])
            end
        end
        for name, variable in pairs(client_variables) do
            local values = response.headers[name]
            if values ~= nil and values[0] ~= "" then
                txn:set_var(variable, values[0])
            end
        end
        -- Forward the normalized path that Keyward checked.
        txn.http:req_set_uri(uri[0])
        txn:set_var("txn.keyward_allowed", true)
    end
end, 1)
