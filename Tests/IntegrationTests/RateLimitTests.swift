import Foundation
import TestSupport
import Testing

@testable import Dispatcher

/// A rate limit is kept by all dispatchers together. What is tested is a rate, so here a stretch of time is measured.
@Suite struct RateLimitTests {
  private struct Sample {
    /// Seconds, by the database's clock.
    var at: Double
    /// Deliveries claimed so far: tokens taken.
    var granted: Int
  }

  /// What is in flight when a machine stands still arrives in one go later, and counts in another ten seconds than it was
  /// granted in. With five at a time that is no more than fifteen, and all bounds hold by construction.
  @Test func threeDispatchersTogetherKeepTheLimit() async throws {
    let (rate, events) = (100, 9000)
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let endpoint = try await database.addEndpoint(
      listener.url(),
      options: "rate_limit => \(rate), max_in_flight => 5"
    )
    try await database.publish(events)
    let others = [try RunningDispatcher(database), try RunningDispatcher(database)]
    var samples: [Sample] = []
    try await withDispatcher(database) { _ in
      try await eventually("all are cut") {
        try await database.int("SELECT sum(events) FROM outbox.position") == events
      }
      // Until ten seconds brought what they should. The first may not, on a machine that stands still for a while: of the
      // tokens of more than a quarter of a second some are lost.
      try await eventually("ten seconds have passed, and their tokens were taken", within: .seconds(80)) {
        samples.append(try await sample(database, events))
        let last = samples.last!
        return samples.contains { start in
          let expected = Double(rate) * (last.at - start.at)
          return last.at - start.at >= 10 && Double(last.granted - start.granted) >= 0.95 * expected
        }
      }
      try await database.execute("SELECT outbox.pause(\(endpoint))")
      try await eventually("nothing is in flight") {
        try await database.int("SELECT count(*) FROM outbox.in_flight") == 0
      }
    }
    for other in others { try await other.stop() }

    // No ten seconds, wherever they begin, brought more than 5 % too many: by the receiver's clock, and by the database's.
    let arrivals = listener.arrivals.map(\.at).sorted()
    var most = 0
    var first = 0
    for (index, arrival) in arrivals.enumerated() {
      while arrivals[first] <= arrival - .seconds(10) { first += 1 }
      most = max(most, index - first + 1)
    }
    let (began, ended) = (samples[0], samples.last!)
    print(
      "rate limit \(rate): at most \(most) arrivals in 10 s; \(ended.granted - began.granted) tokens in \(ended.at - began.at) s"
    )
    #expect(most <= rate * 10 * 105 / 100)
    for (index, start) in samples.enumerated() {
      for end in samples[index...] where end.at <= start.at + 10 {
        // The clock is read a moment before the rows are counted.
        #expect(Double(end.granted - start.granted) <= Double(rate) * (end.at - start.at + 0.25) + 26)
      }
    }
    // All three had their part.
    #expect(try await database.int("SELECT count(DISTINCT dispatcher_id) FROM outbox.attempt") == 3)
    #expect(try await database.missing() == 0)
  }

  @Test func limitThatIsSetLoweredAndRemovedCountsAtOnce() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in .init(status: 200, delay: .milliseconds(50)) }
    let endpoint = try await database.addEndpoint(listener.url(), options: "max_in_flight => 2")
    try await withDispatcher(database) { dispatcher in
      try await database.publish(400)
      try await eventually("some have arrived") { listener.arrivals.count >= 4 }
      // What is queued in memory goes back, and waits for its tokens like everything else.
      try await database.execute("UPDATE outbox.endpoint SET rate_limit = 0.001 WHERE id = \(endpoint)")
      try await eventually("nothing is in memory") {
        dispatcher.status.queued == 0 && dispatcher.status.inFlight == 0 && dispatcher.status.unrecorded == 0
      }
      try await eventually("the rest waits") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE dispatcher_id IS NULL")
          == 400 - listener.accepted().count
      }
      #expect(listener.accepted().count < 100)
      try await database.execute("UPDATE outbox.endpoint SET rate_limit = NULL WHERE id = \(endpoint)")
      try await eventually("all have arrived") { listener.accepted().count == 400 }
    }
    #expect(Set(listener.accepted().map(\.id)).count == 400)
    #expect(listener.arrivals.count == 400)
  }

  private func sample(_ database: TestDatabase, _ events: Int) async throws -> Sample {
    let row = try await database.rows(
      "SELECT date_part('epoch', clock_timestamp()), \(events) - count(*) FROM outbox.delivery WHERE dispatcher_id IS NULL"
    )[0]
    return Sample(at: Double(row[0]!)!, granted: Int(row[1]!)!)
  }
}
