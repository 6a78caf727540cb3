import Testing

@testable import DeliveryCore

@Suite struct RetryPolicyTests {
  @Test func defaultScheduleSpansAboutThreeDays() {
    let policy = RetryPolicy(jitter: 0)
    let delays = (1..<policy.maxAttempts).map { policy.delay(afterAttempt: $0, random: 0.5) }
    let seconds: [Duration] = [5, 15, 45, 135, 405, 1215, 3645, 10_935, 32_805].map { .seconds($0) }
    #expect(Array(delays.prefix(9)) == seconds)
    #expect(delays.dropFirst(9).allSatisfy { $0 == .seconds(43_200) })
    let span = delays.reduce(.zero, +)
    #expect(span > .seconds(3 * 86_400 - 5 * 3600) && span < policy.maxAge)
  }

  @Test func delaysGrowWithinTheirBounds() {
    forSeeds { random, seed in
      let policy = RetryPolicy(
        firstDelay: .milliseconds(Int.random(in: 10...86_400_000, using: &random)),
        multiplier: .random(in: 1...100, using: &random),
        longestDelay: .milliseconds(Int.random(in: 10...2_592_000_000, using: &random)),
        jitter: .random(in: 0...1, using: &random)
      )
      var previous = Duration.zero
      for attempt in [Int.min, -1, 0, 1, 2, 3, 10, 50, 1000, Int.max] {
        let middle = policy.delay(afterAttempt: attempt, random: 0.5)
        #expect(middle >= previous && middle <= policy.longestDelay + .nanoseconds(1000), seed)
        previous = middle
        let roll = Double.random(in: 0..<1, using: &random)
        let jittered = policy.delay(afterAttempt: attempt, random: roll)
        let spread = middle * policy.jitter + .nanoseconds(1000)
        #expect(jittered >= .zero && jittered >= middle - spread && jittered <= middle + spread, seed)
        #expect((roll < 0.5) == (jittered < middle) || jittered == middle, seed)
      }
    }
  }

  @Test(arguments: [Double.nan, .infinity, -.infinity, -1, 0, 0.5, 1, 1e300])
  func nonsenseNeverTraps(multiplier: Double) {
    for firstDelay in [Duration.zero, .seconds(-1), .seconds(1), .seconds(Int64.max)] {
      for jitter in [Double.nan, -1, 0, 1, 5] {
        for longest in [Duration.zero, .seconds(60), .seconds(Int64.max)] {
          let policy = RetryPolicy(
            firstDelay: firstDelay,
            multiplier: multiplier,
            longestDelay: longest,
            jitter: jitter
          )
          for attempt in [1, 2, 3, Int.max] {
            for random in [0, 0.5, 0.999_999] {
              #expect(policy.delay(afterAttempt: attempt, random: random) >= .zero)
            }
          }
        }
      }
    }
  }

  @Test func constantAndZeroDelays() {
    let constant = RetryPolicy(firstDelay: .seconds(7), multiplier: 1, jitter: 0)
    #expect(constant.delay(afterAttempt: 1_000_000_000, random: 0.9) == .seconds(7))
    let zero = RetryPolicy(firstDelay: .zero, multiplier: 3, jitter: 0)
    #expect(zero.delay(afterAttempt: 100_000, random: 0.9) == .zero)
  }

  @Test func explicitDelaysAreTheScheduleAndItsEnd() {
    let policy = RetryPolicy(jitter: 0, maxAttempts: 99, delays: [.seconds(1), .seconds(60), .seconds(5)])
    #expect(policy.attempts == 4)
    let delays = [Int.min, 1, 2, 3, 4, Int.max].map { policy.delay(afterAttempt: $0, random: 0.9) }
    #expect(delays == [1, 1, 60, 5, 5, 5].map { .seconds($0) })
    #expect(RetryPolicy(maxAttempts: 7).attempts == 7)
    #expect(RetryPolicy(maxAttempts: 7, delays: []).attempts == 7)
  }

  @Test func explicitDelaysAreSpreadToo() {
    let policy = RetryPolicy(jitter: 0.5, delays: [.seconds(10)])
    #expect(policy.delay(afterAttempt: 1, random: 0) == .seconds(5))
    #expect(policy.delay(afterAttempt: 1, random: 0.999_999_9) > .seconds(14.99))
  }
}
