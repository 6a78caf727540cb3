import DeliveryCore
import Foundation
import HTTPDelivery
import OutboxStore

extension Outcome {
  /// What a completed exchange means for the delivery.
  /// - Parameter random: uniform in 0..<1; asked for only if there is a pause to be spread, for it is a system call.
  init(
    _ held: Held,
    _ completion: HTTPCompletion,
    policy: RetryPolicy,
    now: Duration,
    random: @autoclosure () -> Double
  ) {
    let result: AttemptResult
    var error: String?
    switch completion.outcome {
    case .response(let status):
      result = .response(status: status, retryAfter: completion.retryAfter?.duration)
      if !(200..<300).contains(status) { error = "the endpoint answered \(status)" }
    case .failure(let failure) where failure.kind == .aborted:
      result = .untried
    case .failure(let failure):
      result = .failure
      error = failure.description
    }
    let verdict = Verdict(
      result,
      attempt: held.attempts + 1,
      age: held.age + (now - held.takenAt),
      policy: policy,
      random: random()
    )
    self.init(held, verdict, tried: result != .untried, error: error)
    if case .response(let status) = completion.outcome { self.status = status }
    duration = completion.duration
    if kind == .failed, !completion.excerpt.isEmpty { response = completion.excerpt.excerptText }
  }

  init(_ held: Held, _ verdict: Verdict, tried: Bool, error: String? = nil) {
    let kind: Kind = verdict == .delivered ? .delivered : tried ? .failed : .returned
    self.init(
      delivery: held.key,
      batch: held.batch,
      kind: kind,
      attempt: tried ? held.attempts + 1 : held.attempts
    )
    switch verdict {
    case .delivered: break
    case .retry(let delay): retryIn = delay
    case .returned: retryIn = .zero
    case .dead(let reason): self.reason = reason.rawValue
    }
    self.error = error
  }
}

extension Outcome {
  /// How long a delivery waits that our own side of an endpoint's settings holds up. The circuit opens meanwhile like with
  /// any failure, so that a backlog does not go round and round.
  private static let unusableDelay: Duration = .seconds(30)

  /// What is not sent because of a problem with the endpoint's settings.
  init(_ held: Held, _ problem: Endpoint.Problem, policy: RetryPolicy, age: Duration, random: Double) {
    if problem.isAttempt {
      let verdict = Verdict(.failure, attempt: held.attempts + 1, age: age, policy: policy, random: random)
      self.init(held, verdict, tried: true, error: problem.words)
    } else {
      let delay = min(Self.unusableDelay, policy.longestDelay)
      self.init(held, .retry(after: delay), tried: true, error: problem.words)
      attempt = held.attempts
    }
  }
}

extension RetryAfter {
  /// From now. A date is held against this host's clock; the result is bounded by the caller.
  fileprivate var duration: Duration {
    switch self {
    case .seconds(let seconds): .seconds(max(0, seconds))
    case .date(let unixSeconds): .seconds(max(0, unixSeconds - Int(Date().timeIntervalSince1970)))
    }
  }
}

extension [UInt8] {
  /// As text that PostgreSQL takes: invalid UTF-8 and NUL become U+FFFD.
  fileprivate var excerptText: String {
    String(decoding: self, as: UTF8.self).replacing("\0", with: "\u{FFFD}")
  }
}
