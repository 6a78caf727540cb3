import DeliveryCore
import Foundation
import OutboxStore
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

/// How an endpoint wants to be sent to, against a real receiver.
@Suite struct SendingTests {
  /// A slot is taken until its answer, 100 ms after the request; so of any 100 ms there are at most three arrivals.
  @Test func noMoreThanMaxInFlightAtATime() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in Reply(status: 200, delay: .milliseconds(100)) }
    _ = try await database.addEndpoint(listener.url(), options: "max_in_flight => 3")
    try await withDispatcher(database) { _ in
      try await database.publish(30)
      try await eventually("all have arrived") { listener.accepted().count == 30 }
    }
    let arrivals = listener.arrivals.map(\.at).sorted()
    for (index, arrival) in arrivals.enumerated().dropFirst(3) {
      // The delay begins a moment after the arrival was noted.
      #expect(arrival - arrivals[index - 3] >= .milliseconds(99), "\(index)")
    }
  }

  @Test func explicitRetryDelaysAreTheWholeSchedule() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in Reply(status: 500) }
    _ = try await database.addEndpoint(
      listener.url(),
      options: "retry_delays => '{20 ms,300 ms,40 ms}', jitter => 0, max_attempts => 1, failure_threshold => 100"
    )
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("it is dead") { try await database.int("SELECT count(*) FROM outbox.dead_letter") == 1 }
    }
    #expect(try await database.rows("SELECT reason, attempts FROM outbox.dead_letter") == [["exhausted", "4"]])
    let arrivals = listener.arrivals.map(\.at)
    #expect(arrivals.count == 4)
    #expect(arrivals[2] - arrivals[1] >= .milliseconds(300))
  }

  /// outbox.retry_schedule and RetryPolicy are two writings of one arithmetic, for exponential backoff and for explicit
  /// delays.
  @Test func scheduleInSQLIsTheDispatchersArithmetic() async throws {
    let database = try await TestDatabase.make()
    for options in [
      "", "first_delay => '1 s', multiplier => 2.5, longest_delay => '3 min', max_attempts => 12",
      "multiplier => 1, max_attempts => 4", "retry_delays => '{1 s,5 s,1 min,10 ms,2 h}', max_attempts => 2",
      "retry_delays => '{1 day,1 day,1 day,2 days,2 days,2 days,2 days}'", "max_age => '1 h'", "max_attempts => 1",
    ] {
      let endpoint = try await database.addEndpoint("https://example.com/", options: options)
      let settings = try await database.session.withConnection { try OutboxStore($0).endpoints([Int64(endpoint)])[0] }
      var policy = Endpoint(settings, egress: .init(), keyring: .init(), learnedAt: .zero).policy
      policy.jitter = 0
      var expected: [Double] = []
      var age = Duration.zero
      var attempt = 1
      while case .retry(let delay) = Verdict(.failure, attempt: attempt, age: age, policy: policy, random: 0.5) {
        expected.append(delay / .seconds(1))
        age += delay
        attempt += 1
      }
      let schedule = try await database.rows(
        "SELECT date_part('epoch', pause) FROM outbox.retry_schedule(\(endpoint)) WHERE attempt > 1 ORDER BY attempt"
      ).map { Double($0[0]!)! }
      #expect(schedule.count == expected.count, "\(options)")
      for (sql, swift) in zip(schedule, expected) { #expect(abs(sql - swift) < 0.001, "\(options)") }
    }
  }

  /// `Retry-After` as a date, within longest_delay and beyond it; also where the delays are explicit.
  @Test(arguments: ["first_delay => '20 ms'", "retry_delays => '{20 ms,20 ms}'"])
  func retryAfterAsADateIsHonouredUpToTheLongestDelay(options: String) async throws {
    let database = try await TestDatabase.make()
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(identifier: "GMT")
    formatter.dateFormat = "EEE, dd MMM yyyy HH:mm:ss 'GMT'"
    let (soon, late) = (formatter.string(from: Date() + 1800), formatter.string(from: Date() + 90_000))
    let listener = try await Listener { arrival, _ in
      Reply(status: 503, headers: ["Retry-After": arrival.path == "/soon" ? soon : late])
    }
    for path in ["/soon", "/late"] {
      _ = try await database.addEndpoint(listener.url(path), options: "\(options), longest_delay => '2 h', jitter => 0")
    }
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("both were tried") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE attempts = 1") == 2
      }
    }
    let waits = try await database.rows(
      "SELECT round(extract(epoch FROM due_at - clock_timestamp()) / 600) FROM outbox.delivery ORDER BY endpoint_id"
    )
    #expect(waits == [["3"], ["12"]])
  }

  /// Martlet's own events travel like any other: here an endpoint dies, another one is told, and told again when it is well.
  @Test func ownEventsAreDelivered() async throws {
    let database = try await TestDatabase.make()
    let mended = Switch()
    let listener = try await Listener { arrival, _ in
      arrival.path == "/watch" || mended.isOn ? .ok : Reply(status: 500)
    }
    _ = try await database.addEndpoint(
      listener.url("/sick"),
      options: "first_delay => '20 ms', multiplier => 1, failure_threshold => 3, max_attempts => 100"
    )
    _ = try await database.addEndpoint(listener.url("/watch"), types: "{martlet.endpoint.*}")
    try await withDispatcher(database) { _ in
      try await database.publish(5)
      try await eventually("the watcher is told") { listener.accepted("/watch").count == 1 }
      mended.turnOn()
      try await database.execute("UPDATE outbox.endpoint_health SET probe_at = clock_timestamp()")
      try await eventually("and told again") { listener.accepted("/watch").count == 2 }
      try await eventually("all have arrived") { listener.accepted("/sick").count == 5 }
    }
    let bodies = listener.accepted("/watch").map(\.body)
    #expect(bodies[0].contains(#""type":"martlet.endpoint.failing""#) && bodies[0].contains(#""circuit": "open""#))
    #expect(bodies[1].contains(#""type":"martlet.endpoint.recovered""#) && bodies[1].contains(#""circuit": "closed""#))
    #expect(try await database.missing() == 0)
  }

  /// Half of all requests fail: never ten in a row, and still the circuit opens.
  @Test func endpointThatFailsHalfOfTheTimeOpensItsCircuit() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, _ in (arrival.n ?? 0) % 2 == 0 ? Reply(status: 500) : .ok }
    _ = try await database.addEndpoint(
      listener.url(),
      options: "failure_threshold => 5, first_delay => '1 h', failure_rate => 0.4, max_in_flight => 1"
    )
    let second = try RunningDispatcher(database)
    try await withDispatcher(database) { _ in
      try await database.publish(60)
      try await eventually("the circuit is open") {
        try await database.int("SELECT count(*) FROM outbox.endpoint_health WHERE state <> 'closed'") == 1
      }
      try await eventually("nothing is in flight") {
        try await database.int("SELECT count(*) FROM outbox.in_flight") == 0
      }
    }
    try await second.stop()
    #expect(try await database.int("SELECT consecutive_failures FROM outbox.endpoint_health") < 5)
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery WHERE attempts = 0") > 0)
    #expect(try await database.missing() == 0)
  }
}
