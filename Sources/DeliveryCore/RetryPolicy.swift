/// How an endpoint wants failed deliveries tried again: exponential backoff with jitter, within bounds.
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

  package init(
    firstDelay: Duration = .seconds(5),
    multiplier: Double = 3,
    longestDelay: Duration = .seconds(43_200),
    jitter: Double = 0.1,
    maxAttempts: Int = 15,
    maxAge: Duration = .seconds(604_800)
  ) {
    self.firstDelay = firstDelay
    self.multiplier = multiplier
    self.longestDelay = longestDelay
    self.jitter = jitter
    self.maxAttempts = maxAttempts
    self.maxAge = maxAge
  }

  /// The pause after attempt number `attempt` (from 1) failed. `random` is uniform in 0..<1.
  package func delay(afterAttempt attempt: Int, random: Double) -> Duration {
    var delay = firstDelay / .seconds(1)
    let longest = longestDelay / .seconds(1)
    // Multiplying step by step, and no further than the cap, cannot overflow whatever the attempt.
    for _ in 1..<max(1, attempt) where delay < longest { delay *= multiplier }
    delay = min(delay, longest)
    return .seconds(delay * (1 + jitter * (2 * random - 1)))
  }
}
