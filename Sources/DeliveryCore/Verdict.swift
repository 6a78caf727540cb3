/// What one try at a delivery came to, as the decisions need it.
package enum AttemptResult: Sendable, Equatable {
  /// A complete answer. `retryAfter` is what the receiver asked for, if it did.
  case response(status: Int, retryAfter: Duration?)
  /// No complete answer: connection, TLS, timeout, refused by policy…
  case failure
  /// Not tried: we were told to stop first.
  case untried
}

/// Why a delivery is given up. The raw values are those of `outbox.dead_letter.reason`.
package enum DeathReason: String, Sendable, Equatable {
  /// The last attempt allowed has failed.
  case exhausted
  /// The receiver answered 410: it wants nothing more.
  case gone
  /// The event is older than the endpoint's maximum age.
  case expired
}

/// What becomes of a delivery after a try.
package enum Verdict: Sendable, Equatable {
  case delivered
  case retry(after: Duration)
  case dead(DeathReason)
  /// Back to the queue as it was.
  case returned

  /// Decides, from the result of attempt number `attempt` (from 1) at a delivery whose event was `age` old at the time.
  ///
  /// Only 2xx is success (Standard Webhooks). `Retry-After` is honoured on 429 and 503, up to the policy's
  /// `longestRetryAfter`, and never shortens our own pause.
  package init(
    _ result: AttemptResult,
    attempt: Int,
    age: Duration,
    policy: RetryPolicy,
    random: @autoclosure () -> Double
  ) {
    switch result {
    case .untried:
      self = .returned
    case .response(let status, _) where (200..<300).contains(status):
      self = .delivered
    case .response(410, _):
      self = .dead(.gone)
    case .response, .failure:
      guard attempt < policy.attempts else {
        self = .dead(.exhausted)
        return
      }
      var delay = policy.delay(afterAttempt: attempt, random: random())
      if case .response(let status, let asked?) = result, status == 429 || status == 503 {
        delay = max(delay, min(asked, policy.longestRetryAfter))
      }
      self = age + delay > policy.maxAge ? .dead(.expired) : .retry(after: delay)
    }
  }
}
