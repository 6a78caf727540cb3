/// What became of one request. Every submitted request completes exactly once.
package struct HTTPCompletion: Sendable {
  package var tag: UInt64
  package var outcome: HTTPOutcome
  /// From the moment the engine took the request to the end of the exchange.
  package var duration: Duration
  /// The beginning of the response body, for a status that is not 2xx only.
  package var excerpt: [UInt8]
  /// The beginning of a 2xx response's body, as much as the request asked to keep.
  package var keptBody: [UInt8]
  package var retryAfter: RetryAfter?

  package init(
    tag: UInt64,
    outcome: HTTPOutcome,
    duration: Duration,
    excerpt: [UInt8] = [],
    keptBody: [UInt8] = [],
    retryAfter: RetryAfter? = nil
  ) {
    self.tag = tag
    self.outcome = outcome
    self.duration = duration
    self.excerpt = excerpt
    self.keptBody = keptBody
    self.retryAfter = retryAfter
  }
}

package enum HTTPOutcome: Sendable, Equatable {
  /// A complete response, whatever its status; or one whose body was cut off at `responseLimitBytes`.
  case response(status: Int)
  case failure(HTTPFailure)
}
