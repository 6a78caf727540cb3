import CLibCurl
import Testing

@testable import HTTPDelivery

@Suite struct CurlCodeTests {
  /// Every code libcurl may return, in the phase before a request is sent. Those not listed are `.other`.
  private static let expected: [UInt32: HTTPFailure.Kind] = [
    1: .invalidRequest, 3: .invalidRequest, 5: .proxy, 6: .dns, 7: .connect, 8: .malformedResponse,
    16: .malformedResponse, 18: .reset, 23: .responseTooLarge, 28: .timeout, 35: .tls, 42: .aborted,
    43: .invalidRequest, 45: .connect, 52: .reset, 53: .tls, 54: .tls, 55: .reset, 56: .reset, 58: .tls, 59: .tls,
    60: .tls, 61: .malformedResponse, 63: .responseTooLarge, 64: .tls, 65: .reset, 66: .tls, 67: .invalidRequest,
    77: .tls, 80: .tls, 82: .tls, 83: .tls, 89: .connect, 90: .tls, 91: .tls, 92: .reset, 95: .malformedResponse,
    96: .connect, 97: .proxy, 98: .tls,
  ]

  @Test(arguments: 1..<UInt32(200))
  func everyCodeHasItsKindWhilePreparing(code: UInt32) {
    let kind = HTTPFailure.Kind(curlCode: CURLcode(rawValue: code), phase: .connecting)
    #expect(kind == Self.expected[code, default: .other])
  }

  @Test(arguments: [ExchangePhase.waiting, .reading])
  func codesThatMeanSomethingElseOnceTheRequestIsSent(phase: ExchangePhase) {
    #expect(HTTPFailure.Kind(curlCode: CURLE_UNSUPPORTED_PROTOCOL, phase: phase) == .malformedResponse)
    #expect(HTTPFailure.Kind(curlCode: CURLE_OUT_OF_MEMORY, phase: phase) == .responseTooLarge)
  }

  @Test(arguments: ExchangePhase.allCases)
  func timeoutSaysWhatItInterruptedAndNothingThatVaries(phase: ExchangePhase) {
    let failure = HTTPFailure(curlCode: CURLE_OPERATION_TIMEDOUT, phase: phase, detail: "after 1234 ms")
    #expect(failure.message == "the deadline passed while \(phase.description)")
  }

  @Test func detailFollowsThePlainWords() {
    let failure = HTTPFailure(curlCode: CURLE_PEER_FAILED_VERIFICATION, phase: .securing, detail: "expired")
    #expect(failure == HTTPFailure(.tls, "no trusted TLS connection could be made: expired"))
    #expect(HTTPFailure(curlCode: CURLE_READ_ERROR, phase: .reading, detail: "").message == "libcurl error 26")
  }

  @Test func textFromElsewhereIsMadeFitToShow() {
    #expect(PlainText.sanitized("a\r\nb\u{0}c\u{1B}[31m\u{202E}d", limitBytes: 100) == "a  b c [31m d")
    #expect(PlainText.sanitized("äöü", limitBytes: 4) == "äö…")
  }
}
