import Foundation

/// How an endpoint wants failed deliveries tried again: exponential backoff with jitter, within bounds; or the pauses that it
/// names itself.
package struct RetryPolicy: Sendable, Equatable {
  package var firstDelay: Duration
  package var multiplier: Double
  package var longestDelay: Duration
  /// 0…1: how much of each delay is random. 0.1 spreads a delay over ±10 %.
  package var jitter: Double
  /// Real attempts, the first included. Waiting behind an open circuit is none.
  package var maxAttempts: Int
  /// Counted from the event's creation. Older deliveries are not tried again.
  package var maxAge: Duration
  /// The pause before each further attempt, instead of `firstDelay`, `multiplier`, `longestDelay` and `maxAttempts`.
  package var delays: [Duration]?

  package init(
    firstDelay: Duration = .seconds(5),
    multiplier: Double = 3,
    longestDelay: Duration = .seconds(43_200),
    jitter: Double = 0.1,
    maxAttempts: Int = 15,
    maxAge: Duration = .seconds(604_800),
    delays: [Duration]? = nil
  ) {
    self.firstDelay = firstDelay
    self.multiplier = multiplier
    self.longestDelay = longestDelay
    self.jitter = jitter
    self.maxAttempts = maxAttempts
    self.maxAge = maxAge
    self.delays = delays.flatMap { $0.isEmpty ? nil : $0 }
  }

  /// Real attempts in all: one, and one more after each pause.
  package var attempts: Int { delays.map { $0.count + 1 } ?? maxAttempts }

  /// The longest pause that a receiver can ask for with `Retry-After`: `outbox.endpoint.longest_delay`, also where
  /// `retry_delays` says when to try again.
  package var longestRetryAfter: Duration { longestDelay }

  /// The pause after attempt number `attempt` (from 1) failed. `random` is uniform in 0..<1.
  ///
  /// `longestDelay` bounds the pause before jitter, so that deliveries at the bound are still spread.
  package func delay(afterAttempt attempt: Int, random: Double) -> Duration {
    if let delays { return jittered(max(0, delays[min(max(1, attempt), delays.count) - 1] / .seconds(1)), random) }
    let first = max(0, firstDelay / .seconds(1))
    let longest = max(0, longestDelay / .seconds(1))
    // A power, not a loop: attempts are not bounded here. It may be infinite, which the bound takes care of.
    let grown = first == 0 ? 0 : first * pow(multiplier, Double(max(1, attempt) - 1))
    // Written so that NaN, from a multiplier that is none, becomes the longest delay.
    return jittered(grown < longest ? max(0, grown) : longest, random)
  }

  private func jittered(_ delay: Double, _ random: Double) -> Duration {
    let seconds = delay * (1 + min(max(0, jitter), 1) * (2 * random - 1))
    // Beyond what Duration's conversion takes.
    return seconds < 1e18 ? .seconds(seconds) : .seconds(1_000_000_000_000_000_000)
  }
}
