-- The action "keyward ADDRESS" asks Keyward whether a request is authorized. If the request is not
-- authorized, the action ends the request with Keyward's response. The file haproxy.cfg in this
-- folder uses the action.

-- Header fields that are not copied, because they belong to one connection or are set below.
local skipped_fields = {
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

local identity_fields = {
    "x-keyward-user",
    "x-keyward-user-id",
    "x-keyward-roles",
    "x-keyward-key-id",
    "x-keyward-application",
    "x-keyward-scopes",
}

local limit_variables = {
    ["ratelimit"] = "txn.keyward_limit",
    ["ratelimit-policy"] = "txn.keyward_policy",
}

local unavailable_body = '{"status":"error","http_code":503,"error":"TEMPORARILY_UNAVAILABLE",'
    .. '"error_description":"Access cannot be checked at the moment."}'

-- The header fields of the subrequest: the fields of the request, and fields that describe the
-- request.
local function subrequest_fields(txn)
    local headers = {}
    for name, values in pairs(txn.http:req_get_headers()) do
        if not skipped_fields[name] and name:sub(1, 12) ~= "x-forwarded-" then
            headers[name] = {}
            for index = 0, #values do
                table.insert(headers[name], values[index])
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
        if not skipped_fields[name] then
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
    local response = core.httpclient():get { url = url, headers = subrequest_fields(txn), timeout = 2000 }
    if response.status == nil or response.status < 200 then
        refuse(txn, 503, { ["content-type"] = { "application/json" } }, unavailable_body)
    elseif response.status >= 300 then
        refuse(txn, response.status, response.headers, response.body)
    else
        for _, name in pairs(identity_fields) do
            txn.http:req_del_header(name)
            local values = response.headers[name]
            if values ~= nil then
                txn.http:req_set_header(name, values[0])
            end
        end
        -- Pass the state of the rate limit to the client.
        for name, variable in pairs(limit_variables) do
            local values = response.headers[name]
            if values ~= nil then
                txn:set_var(variable, values[0])
            end
        end
    end
end, 1)
