-- The action "keyward ADDRESS": asks Keyward whether to authorize a request. If not, it ends the
-- request with Keyward's response. See haproxy.cfg in this folder for its use.

-- Header fields that are not copied: they belong to one connection, or are set below.
local skipped = {
    ["connection"] = true,
    ["content-length"] = true,
    ["expect"] = true,
    ["host"] = true,
    ["keep-alive"] = true,
    ["te"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
    ["forwarded"] = true,
}

local identity = {
    "x-keyward-user",
    "x-keyward-user-id",
    "x-keyward-roles",
    "x-keyward-key-id",
    "x-keyward-application",
}

local limits = {
    ["ratelimit"] = "txn.keyward_limit",
    ["ratelimit-policy"] = "txn.keyward_policy",
}

local down = '{"status":"error","http_code":503,"error":"TEMPORARILY_UNAVAILABLE",'
    .. '"error_description":"Access cannot be checked at the moment."}'

-- The header fields of the subrequest: those of the request, and fields that describe it.
local function question(txn)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not skipped[name] and name:sub(1, 12) ~= "x-forwarded-" then
            headers[name] = {}
            for at = 0, #values do
                table.insert(headers[name], values[at])
            end
        end
    end
    headers["x-forwarded-method"] = { txn.f:method() }
    headers["x-forwarded-uri"] = { txn.f:pathq() }
    headers["x-forwarded-host"] = { txn.f:req_hdr("host") }
    headers["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
    headers["x-forwarded-for"] = { txn.f:src() }
    return headers
end

local function refuse(txn, status, headers, body)
    local reply = txn:reply { status = status }
    for name, values in pairs(headers) do
        if not skipped[name] then
            for _, value in pairs(values) do
                reply:add_header(name, value)
            end
        end
    end
    reply:set_body(body)
    txn:done(reply)
end

core.register_action("keyward", { "http-req" }, function(txn, address)
    local url = "http://" .. address .. "/-/verify/haproxy"
    local answer = core.httpclient():get { url = url, headers = question(txn), timeout = 2000 }
    if answer.status == nil or answer.status < 200 then
        refuse(txn, 503, { ["content-type"] = { "application/json" } }, down)
    elseif answer.status >= 300 then
        refuse(txn, answer.status, answer.headers, answer.body)
    else
        for _, name in pairs(identity) do
            txn.http:req_del_header(name)
            local values = answer.headers[name]
            if values ~= nil then
                txn.http:req_set_header(name, values[0])
            end
        end
        -- Pass the state of the rate limit to the client.
        for name, variable in pairs(limits) do
            local values = answer.headers[name]
            if values ~= nil then
                txn:set_var(variable, values[0])
            end
        end
    end
end, 1)
