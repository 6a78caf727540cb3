import CLibCurl

/// How far an exchange had come when it failed.
enum ExchangePhase: CaseIterable {
  case resolving, connecting, securing, waiting, reading

  /// Completes "the deadline passed while …".
  var description: String {
    switch self {
    case .resolving: "resolving the host name"
    case .connecting: "connecting"
    case .securing: "negotiating TLS"
    case .waiting: "waiting for an answer"
    case .reading: "reading the answer"
    }
  }
}

extension HTTPFailure {
  /// The one place where libcurl's codes get their meaning.
  /// - Parameters:
  ///   - phase: how far the exchange had come.
  ///   - detail: libcurl's own words, already fit to be shown; may be empty.
  init(curlCode: CURLcode, phase: ExchangePhase, detail: String) {
    var kind = Kind(curlCode: curlCode, phase: phase)
    // libcurl reports what is wrong with a chunked body as a failure to receive it.
    if curlCode == CURLE_RECV_ERROR, detail.hasSuffix("in chunked-encoding") {
      kind = detail.hasPrefix("Out of memory") ? .responseTooLarge : .malformedResponse
    }
    let words: String
    switch kind {
    case .dns: words = "the host name could not be resolved"
    case .connect: words = "no connection could be made"
    case .tls where curlCode == CURLE_SSL_CERTPROBLEM: words = "the client certificate or its key cannot be used"
    case .tls: words = "no trusted TLS connection could be made"
    // libcurl's words hold milliseconds and byte counts, which would make every timeout a message of its own.
    case .timeout:
      self.init(kind, "the deadline passed while \(phase.description)")
      return
    case .reset: words = "the connection ended before the response was complete"
    case .malformedResponse: words = "the answer is not valid HTTP"
    case .responseTooLarge: words = "the response's header is too large"
    case .egressDenied: words = "the egress policy refuses the address"
    case .proxy: words = "the proxy cannot be used"
    case .invalidRequest: words = "the request cannot be sent"
    case .aborted: words = "the exchange was aborted"
    case .other: words = "libcurl error \(curlCode.rawValue)"
    }
    self.init(kind, detail.isEmpty ? words : "\(words): \(detail)")
  }
}

extension HTTPFailure.Kind {
  init(curlCode: CURLcode, phase: ExchangePhase) {
    switch curlCode {
    case CURLE_COULDNT_RESOLVE_HOST:
      self = .dns

    case CURLE_COULDNT_RESOLVE_PROXY, CURLE_PROXY:
      self = .proxy

    case CURLE_COULDNT_CONNECT, CURLE_INTERFACE_FAILED, CURLE_NO_CONNECTION_AVAILABLE, CURLE_QUIC_CONNECT_ERROR:
      self = .connect

    case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CERTPROBLEM, CURLE_SSL_CIPHER,
      CURLE_SSL_ENGINE_NOTFOUND, CURLE_SSL_ENGINE_SETFAILED, CURLE_SSL_ENGINE_INITFAILED, CURLE_USE_SSL_FAILED,
      CURLE_SSL_CACERT_BADFILE, CURLE_SSL_SHUTDOWN_FAILED, CURLE_SSL_CRL_BADFILE, CURLE_SSL_ISSUER_ERROR,
      CURLE_SSL_PINNEDPUBKEYNOTMATCH, CURLE_SSL_INVALIDCERTSTATUS, CURLE_SSL_CLIENTCERT:
      self = .tls

    case CURLE_OPERATION_TIMEDOUT:
      self = .timeout

    case CURLE_GOT_NOTHING, CURLE_PARTIAL_FILE, CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_SEND_FAIL_REWIND,
      CURLE_HTTP2_STREAM:
      self = .reset

    case CURLE_WEIRD_SERVER_REPLY, CURLE_HTTP2, CURLE_HTTP3, CURLE_BAD_CONTENT_ENCODING:
      self = .malformedResponse

    // Before a request was sent, the URL's scheme; after it, an answer without a status line (HTTP/0.9).
    case CURLE_UNSUPPORTED_PROTOCOL:
      self = phase < .waiting ? .invalidRequest : .malformedResponse

    // The callbacks refuse bytes for one reason that is a failure: the header limit.
    case CURLE_WRITE_ERROR, CURLE_FILESIZE_EXCEEDED:
      self = .responseTooLarge

    // libcurl's own limit on a single header line reports itself as a failed allocation.
    case CURLE_OUT_OF_MEMORY:
      self = phase < .waiting ? .other : .responseTooLarge

    case CURLE_URL_MALFORMAT, CURLE_LOGIN_DENIED, CURLE_BAD_FUNCTION_ARGUMENT:
      self = .invalidRequest

    case CURLE_ABORTED_BY_CALLBACK:
      self = .aborted

    default:
      self = .other
    }
  }
}

extension ExchangePhase: Comparable {}
