import Testing

@testable import DeliveryCore

@Suite struct VerdictTests {
  private let policy = RetryPolicy(
    firstDelay: .seconds(10),
    multiplier: 2,
    longestDelay: .seconds(100),
    jitter: 0,
    maxAttempts: 5,
    maxAge: .seconds(1000)
  )

  private func verdict(_ result: AttemptResult, attempt: Int = 1, age: Duration = .zero) -> Verdict {
    Verdict(result, attempt: attempt, age: age, policy: policy, random: 0.5)
  }

  @Test func onlySuccessIsSuccess() {
    for status in 0..<700 {
      let expected: Verdict =
        switch status {
        case 200..<300: .delivered
        case 410: .dead(.gone)
        default: .retry(after: .seconds(10))
        }
      #expect(verdict(.response(status: status, retryAfter: nil)) == expected, "\(status)")
    }
    #expect(verdict(.failure) == .retry(after: .seconds(10)))
    #expect(verdict(.untried) == .returned)
  }

  @Test func lastAttemptExhausts() {
    #expect(verdict(.failure, attempt: 4) == .retry(after: .seconds(80)))
    for attempt in [5, 6, Int.max] {
      #expect(verdict(.failure, attempt: attempt) == .dead(.exhausted))
      #expect(verdict(.response(status: 500, retryAfter: .seconds(1)), attempt: attempt) == .dead(.exhausted))
      #expect(verdict(.response(status: 410, retryAfter: nil), attempt: attempt) == .dead(.gone))
      #expect(verdict(.response(status: 204, retryAfter: nil), attempt: attempt) == .delivered)
      #expect(verdict(.untried, attempt: attempt) == .returned)
    }
  }

  @Test func explicitDelaysDecideWhenItIsExhausted() {
    var explicit = policy
    explicit.delays = [.seconds(1), .seconds(30)]
    func verdict(_ attempt: Int, _ result: AttemptResult = .failure, age: Duration = .zero) -> Verdict {
      Verdict(result, attempt: attempt, age: age, policy: explicit, random: 0.5)
    }
    #expect(verdict(1) == .retry(after: .seconds(1)))
    #expect(verdict(2) == .retry(after: .seconds(30)))
    #expect(verdict(3) == .dead(.exhausted))
    #expect(verdict(2, age: .seconds(971)) == .dead(.expired))
    // Retry-After still lengthens them, up to the longest delay.
    #expect(verdict(1, .response(status: 429, retryAfter: .seconds(999))) == .retry(after: .seconds(100)))
    #expect(explicit.longestRetryAfter == .seconds(100))
  }

  @Test func ageExpires() {
    #expect(verdict(.failure, age: .seconds(990)) == .retry(after: .seconds(10)))
    #expect(verdict(.failure, age: .seconds(990) + .milliseconds(1)) == .dead(.expired))
    #expect(verdict(.response(status: 200, retryAfter: nil), age: .seconds(10_000)) == .delivered)
    #expect(verdict(.untried, age: .seconds(10_000)) == .returned)
    #expect(verdict(.failure, attempt: 5, age: .seconds(10_000)) == .dead(.exhausted))
  }

  @Test func retryAfterIsHonouredOn429And503WithinBounds() {
    for status in [429, 503] {
      for (asked, given) in [(-5, 10), (0, 10), (9, 10), (50, 50), (100, 100), (101, 100), (1_000_000, 100)] {
        let result = AttemptResult.response(status: status, retryAfter: .seconds(asked))
        #expect(verdict(result) == .retry(after: .seconds(given)), "\(status) \(asked)")
      }
    }
    for status in [301, 400, 404, 500, 502, 504] {
      #expect(verdict(.response(status: status, retryAfter: .seconds(50))) == .retry(after: .seconds(10)))
    }
    #expect(verdict(.response(status: 503, retryAfter: .seconds(50)), age: .seconds(960)) == .dead(.expired))
  }
}
