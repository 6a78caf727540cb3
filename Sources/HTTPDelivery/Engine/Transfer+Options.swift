import CLibCurl

extension Transfer {
  /// Options that hold for every request.
  func setConstantOptions(_ configuration: HTTPEngineConfiguration) {
    func set(_ option: CURLoption, _ value: Int) { curl_shim_set_long(easy, option, value) }
    func set(_ option: CURLoption, _ value: String?) { curl_shim_set_string(easy, option, value) }
    func set(_ option: CURLoption, _ value: UnsafeRawPointer) { curl_shim_set_pointer(easy, option, value) }

    set(CURLOPT_POST, 1)
    set(CURLOPT_USERAGENT, configuration.userAgent)
    set(CURLOPT_PROTOCOLS_STR, configuration.egress.allowHTTP ? "http,https" : "https")
    set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1)
    set(CURLOPT_FOLLOWLOCATION, 0)
    set(CURLOPT_HTTP09_ALLOWED, 0)
    set(CURLOPT_NETRC, Int(CURL_NETRC_IGNORED.rawValue))

    setProxy(configuration.proxy)

    set(CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2)
    set(CURLOPT_SSL_VERIFYPEER, 1)
    set(CURLOPT_SSL_VERIFYHOST, 2)
    // For a key that is encrypted after all: OpenSSL would ask the terminal for its passphrase.
    set(CURLOPT_KEYPASSWD, "")
    if let caFile = configuration.caFile { set(CURLOPT_CAINFO, caFile) }
    // libcurl keeps the parsed certificate bundle for later connections, but only if there is no directory beside it;
    // without that, every new TLS connection parses the whole bundle again.
    if configuration.caFile != nil || CurlLibrary.hasBundledAuthorities {
      set(CURLOPT_CAPATH, nil)
    }

    // Timers instead of SIGALRM; the engine thread blocks SIGPIPE itself.
    set(CURLOPT_NOSIGNAL, 1)
    // A lookup that has been given up is left to its own thread. Otherwise removing the transfer would wait for it
    // here, and one dead name server would stop every delivery.
    set(CURLOPT_QUICK_EXIT, 1)
    set(CURLOPT_CONNECTTIMEOUT_MS, configuration.connectTimeout.curlMilliseconds)
    set(CURLOPT_DNS_CACHE_TIMEOUT, 60)
    // So that a host which moves is followed even if its old address keeps answering.
    set(CURLOPT_MAXLIFETIME_CONN, 600)
    set(CURLOPT_TCP_NODELAY, 1)
    // Responses are small, and each transfer under way holds its own buffers.
    set(CURLOPT_BUFFERSIZE, 4096)
    set(CURLOPT_UPLOAD_BUFFERSIZE, 16384)

    let context = UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
    set(CURLOPT_PRIVATE, context)
    set(CURLOPT_ERRORBUFFER, UnsafeRawPointer(errorText))
    set(CURLOPT_WRITEDATA, context)
    curl_shim_set_write_callback(easy, CURLOPT_WRITEFUNCTION, TransferCallbacks.body)
    set(CURLOPT_HEADERDATA, context)
    curl_shim_set_write_callback(easy, CURLOPT_HEADERFUNCTION, TransferCallbacks.header)
    set(CURLOPT_OPENSOCKETDATA, context)
    curl_shim_set_open_socket_callback(easy, TransferCallbacks.openSocket)
    set(CURLOPT_CLOSESOCKETDATA, UnsafeRawPointer(Unmanaged.passUnretained(sockets).toOpaque()))
    curl_shim_set_close_socket_callback(easy, SocketTable.close)
    set(CURLOPT_PREREQDATA, context)
    curl_shim_set_before_request_callback(easy, TransferCallbacks.beforeRequest)
    set(CURLOPT_XFERINFODATA, context)
    curl_shim_set_progress_callback(easy, TransferCallbacks.progress)
    set(CURLOPT_NOPROGRESS, 0)
  }
}
