import CLibCurl
import Glibc

extension Transfer {
  /// The status of the last response line received, interim ones included; 0 before any.
  var status: Int { long(CURLINFO_RESPONSE_CODE) }

  /// True when the exchange took place over HTTP/2.
  var usedHTTP2: Bool { long(CURLINFO_HTTP_VERSION) == CURL_HTTP_VERSION_2_0 }

  /// True when no connection was made for this exchange.
  var usedKeptConnection: Bool { long(CURLINFO_NUM_CONNECTS) == 0 && status == 0 }

  /// What became of the request, from the code libcurl ended it with.
  func completion(code: CURLcode, now: MonotonicInstant) -> HTTPCompletion {
    var completion = HTTPCompletion(tag: tag, outcome: outcome(code), duration: arrivedAt.duration(to: now))
    guard case .response(let status) = completion.outcome else { return completion }
    if (200..<300).contains(status) {
      completion.keptBody = response.kept
    } else {
      completion.excerpt = response.kept
      completion.retryAfter = retryAfter
    }
    return completion
  }

  private func outcome(_ code: CURLcode) -> HTTPOutcome {
    let status = status
    let phase = phase
    if let failure = proxyFailure(code, phase: phase) { return .failure(failure) }
    if let problem = response.problem {
      return .failure(HTTPFailure(.malformedResponse, "the answer is not valid HTTP: \(problem.rawValue)"))
    }
    // Only a complete exchange is a response; except that a body nobody reads may be cut off.
    if code == CURLE_OK || response.isCutOff
      || (endedEarlyOverHTTP2(code) && status >= 200)
    {
      guard response.hasWholeHeader, status >= 200 else {
        return .failure(HTTPFailure(curlCode: CURLE_PARTIAL_FILE, phase: phase, detail: ""))
      }
      return .response(status: status)
    }
    if endedEarlyOverHTTP2(code) {
      return .failure(
        HTTPFailure(
          .reset,
          "the server ended the HTTP/2 stream before it had read the request; HTTP/1.1 is used from now on"
        )
      )
    }
    if response.headersOverflowed {
      return .failure(
        HTTPFailure(.responseTooLarge, "the response's header is larger than \(limits.headerBytes) bytes")
      )
    }
    if let refusal = dialling.firstRefusal, dialling.sockets == 0, code == CURLE_COULDNT_CONNECT {
      return .failure(HTTPFailure(.egressDenied, refusal.description))
    }
    return .failure(HTTPFailure(curlCode: code, phase: phase, detail: detail(code)))
  }

  /// A server may end an HTTP/2 stream with a complete response before it has read the request's body (RFC 9113, 8.1).
  /// libcurl 7.88 then still tries to send the body, fails on the closed stream, and reports that instead of the
  /// response, which it may not even have looked at. It has no words for it, as it has for every stream that did not
  /// end cleanly.
  private func endedEarlyOverHTTP2(_ code: CURLcode) -> Bool {
    code == CURLE_HTTP2_STREAM && errorText[0] == 0
  }

  /// True when this exchange shows that libcurl cannot speak HTTP/2 with the server reliably: see above. The same
  /// situation may also leave it waiting for the end of a response that has ended.
  func stumbledOverHTTP2(_ code: CURLcode) -> Bool {
    endedEarlyOverHTTP2(code) || (code == CURLE_OPERATION_TIMEDOUT && response.headerBytes > 0 && usedHTTP2)
  }

  private var retryAfter: RetryAfter? {
    var header: UnsafeMutablePointer<curl_header>?
    // The last request's final response; header lines of interim responses are another origin.
    guard curl_easy_header(easy, "Retry-After", 0, UInt32(CURLH_HEADER), -1, &header) == CURLHE_OK,
      let value = header?.pointee.value
    else { return nil }
    return RetryAfter(parsing: String(cString: value))
  }

  private var phase: ExchangePhase {
    if response.headerBytes > 0 { return .reading }
    if offset(CURLINFO_PRETRANSFER_TIME_T) > 0 { return .waiting }
    if offset(CURLINFO_CONNECT_TIME_T) > 0 { return .securing }
    if offset(CURLINFO_NAMELOOKUP_TIME_T) > 0 { return .connecting }
    return .resolving
  }

  func detail(_ code: CURLcode) -> String {
    if code == CURLE_COULDNT_CONNECT {
      // libcurl's own words name the milliseconds it took, a new message each time.
      let systemError = Int32(truncatingIfNeeded: long(CURLINFO_OS_ERRNO))
      if systemError != 0, let words = strerror(systemError) { return String(cString: words) }
      return ""
    }
    let text = errorText[0] != 0 ? String(cString: errorText) : String(cString: curl_easy_strerror(code))
    return PlainText.sanitized(text, limitBytes: 240)
  }

  func long(_ info: CURLINFO) -> Int {
    var value = 0
    curl_shim_get_long(easy, info, &value)
    return value
  }

  private func offset(_ info: CURLINFO) -> Int64 {
    var value: curl_off_t = 0
    curl_shim_get_offset(easy, info, &value)
    return Int64(value)
  }
}
