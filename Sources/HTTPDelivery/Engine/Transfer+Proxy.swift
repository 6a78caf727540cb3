import CLibCurl

/// Telling failures of the proxy from those of the endpoint behind it.
extension Transfer {
  func setProxy(_ proxy: HTTPProxy?) {
    // Not null: then libcurl would look for one in the environment, which would dial for us, past the egress policy.
    curl_shim_set_string(easy, CURLOPT_PROXY, proxy?.address ?? "")
    // With a proxy no host is excepted from it, without one all are.
    curl_shim_set_string(easy, CURLOPT_NOPROXY, proxy == nil ? "*" : "")
    guard let proxy else { return }
    curl_shim_set_string(easy, CURLOPT_PROXYUSERNAME, proxy.user)
    curl_shim_set_string(easy, CURLOPT_PROXYPASSWORD, proxy.password)
    // What the proxy says while it makes a tunnel is no part of the endpoint's answer.
    curl_shim_set_long(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1)
    // Headers meant for the endpoint are not for the proxy to see.
    curl_shim_set_long(easy, CURLOPT_HEADEROPT, Int(CURLHEADER_SEPARATE))
  }

  /// The failure, if it is the proxy's.
  func proxyFailure(_ code: CURLcode, phase: ExchangePhase) -> HTTPFailure? {
    guard usesProxy, let origin else { return nil }
    if !origin.isSecure, code == CURLE_OK, status == 407 { return Self.refusedCredentials }
    guard code != CURLE_OK, phase < .waiting else { return nil }
    // The answer to CONNECT; 0 before there is one, and on a connection that stood already.
    let tunnelStatus = long(CURLINFO_HTTP_CONNECTCODE)
    switch (code, tunnelStatus) {
    case (_, 200..<300): return nil
    case (CURLE_OPERATION_TIMEDOUT, _):
      // libcurl does not tell whether the proxy has been reached until it has made the tunnel.
      let words = phase == .resolving ? "resolving the proxy's host name" : "connecting through the proxy"
      return HTTPFailure(.timeout, "the deadline passed while \(words)")
    case (_, 407): return Self.refusedCredentials
    case (_, 1...):
      return HTTPFailure(.proxy, "the proxy made no connection to the endpoint: it answered \(tunnelStatus)")
    case (CURLE_COULDNT_RESOLVE_PROXY, _): return HTTPFailure(.proxy, "the proxy's host name could not be resolved")
    case (CURLE_COULDNT_CONNECT, _):
      let detail = detail(code)
      return HTTPFailure(.proxy, "no connection to the proxy could be made" + (detail.isEmpty ? "" : ": \(detail)"))
    case (CURLE_RECV_ERROR, _), (CURLE_SEND_ERROR, _), (CURLE_GOT_NOTHING, _), (CURLE_PROXY, _),
      (CURLE_WEIRD_SERVER_REPLY, _), (CURLE_UNSUPPORTED_PROTOCOL, _):
      return HTTPFailure(.proxy, "the proxy gave no valid answer when asked for a connection to the endpoint")
    default: return nil
    }
  }

  private static let refusedCredentials = HTTPFailure(.proxy, "the proxy wants other credentials: it answered 407")
}
