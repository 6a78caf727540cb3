import Foundation
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

@Suite struct FailureTests {
  private let quick = "first_delay => '20 ms', multiplier => 1"

  @Test func failuresAreTriedAgainUntilDeliveredWithTheSameID() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, count in count < 2 ? Reply(status: 503, body: "busy\u{0}") : .ok }
    _ = try await database.addEndpoint(listener.url(), options: quick)
    try await withDispatcher(database) { _ in
      try await database.publish(5)
      try await eventually("all have arrived") { listener.accepted().count == 5 }
    }
    #expect(Set(listener.arrivals.map(\.id)).count == 5)
    #expect(listener.arrivals.count == 15)
    let attempts = try await database.rows(
      "SELECT attempt, outcome, status, response FROM outbox.attempt GROUP BY 1, 2, 3, 4 ORDER BY attempt"
    )
    #expect(
      attempts == [
        ["1", "failed", "503", "busy\u{FFFD}"], ["2", "failed", "503", "busy\u{FFFD}"], ["3", "delivered", "200", nil],
      ]
    )
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery") == 0)
    #expect(try await database.int("SELECT consecutive_failures FROM outbox.endpoint_health") == 0)
  }

  @Test func whatCannotBeDeliveredBecomesADeadLetterAndComesBackWhenRedriven() async throws {
    let database = try await TestDatabase.make()
    let mended = Switch()
    let listener = try await Listener { _, _ in mended.isOn ? .ok : Reply(status: 500, body: "no") }
    _ = try await database.addEndpoint(listener.url(), options: "\(quick), max_attempts => 3")
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("it is dead") { try await database.int("SELECT count(*) FROM outbox.dead_letter") == 1 }
      let letter = try await database.rows(
        "SELECT reason, attempts, last_status, last_error, payload FROM outbox.dead_letter"
      )
      #expect(letter == [["exhausted", "3", "500", "the endpoint answered 500", #"{"n": 1}"#]])
      #expect(try await database.missing() == 0)
      mended.turnOn()
      try await database.execute("SELECT outbox.redrive(id) FROM outbox.dead_letter")
      try await eventually("it has arrived") { listener.accepted().count == 1 }
    }
    #expect(listener.arrivals.count == 4)
    #expect(Set(listener.arrivals.map(\.id)).count == 1)
    #expect(try await database.int("SELECT count(*) FROM outbox.dead_letter") == 0)
    #expect(try await database.missing() == 0)
  }

  @Test func gone410DisablesTheEndpointAndKeepsItsBacklog() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in Reply(status: 410) }
    let endpoint = try await database.addEndpoint(listener.url(), options: "max_in_flight => 1")
    try await withDispatcher(database) { _ in
      try await database.publish(20)
      try await eventually("it is disabled and the rest is back") {
        try await database.int(
          """
          SELECT count(*) FROM outbox.endpoint WHERE state = 'disabled' AND NOT EXISTS (SELECT FROM outbox.batch)
          """
        ) == 1
      }
    }
    let dead = try await database.int("SELECT count(*) FROM outbox.dead_letter WHERE reason = 'gone'")
    #expect(dead >= 1)
    #expect(
      try await database.int("SELECT count(*) FROM outbox.delivery WHERE endpoint_id = \(endpoint)") == 20 - dead
    )
    #expect(try await database.missing() == 0)
  }

  @Test func retryAfterIsHonouredWithinTheLongestDelay() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, _ in
      Reply(status: 429, headers: ["Retry-After": arrival.path == "/hour" ? "3600" : "999999"])
    }
    _ = try await database.addEndpoint(listener.url("/hour"), options: quick)
    _ = try await database.addEndpoint(listener.url("/weeks"), options: "\(quick), longest_delay => '2 h'")
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("both were tried") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE attempts = 1") == 2
      }
    }
    let waits = try await database.rows(
      "SELECT round(extract(epoch FROM due_at - clock_timestamp()) / 60) FROM outbox.delivery ORDER BY endpoint_id"
    )
    #expect(waits == [["60"], ["120"]])
  }

  @Test func redirectsAreNotFollowed() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, _ in
      arrival.path == "/from" ? Reply(status: 302, headers: ["Location": "/to"]) : .ok
    }
    _ = try await database.addEndpoint(listener.url("/from"), options: "max_attempts => 1")
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("it is dead") { try await database.int("SELECT count(*) FROM outbox.dead_letter") == 1 }
    }
    #expect(listener.arrivals.map(\.path) == ["/from"])
  }

  @Test func anEndpointThatHangsOrIsDownDelaysNobodyElse() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, _ in arrival.path == "/hang" ? .hang : .ok }
    _ = try await database.addEndpoint(listener.url("/hang"), options: "timeout => '5 min', \(quick)")
    _ = try await database.addEndpoint("http://127.0.0.1:1/", options: quick)
    _ = try await database.addEndpoint(listener.url("/good"))
    try await withDispatcher(database, capacity: 200, maxInFlight: 100, gracePeriod: .zero) { _ in
      try await database.publish(3000)
      // The deadline is far below the hanging endpoint's timeout: nothing good waits for that.
      try await eventually("all good ones have arrived") { listener.accepted("/good").count == 3000 }
    }
    #expect(Set(listener.accepted("/good").map(\.id)).count == 3000)
    #expect(try await database.missing() == 0)
  }

  @Test func waitingBehindAnOpenCircuitUsesUpNoAttempts() async throws {
    let database = try await TestDatabase.make()
    let mended = Switch()
    let listener = try await Listener { _, _ in mended.isOn ? .ok : Reply(status: 500) }
    _ = try await database.addEndpoint(
      listener.url(),
      options: "\(quick), max_attempts => 6, failure_threshold => 5, max_in_flight => 1"
    )
    try await withDispatcher(database) { _ in
      try await database.publish(50)
      try await eventually("the circuit is open and all wait") {
        try await database.int(
          "SELECT count(*) FROM outbox.delivery WHERE EXISTS (SELECT FROM outbox.endpoint_health WHERE state = 'open')"
        ) == 50
      }
      // Events published now are parked at the cut.
      try await database.publish(50, first: 51)
      try await eventually("they are parked") { try await database.int("SELECT count(*) FROM outbox.delivery") == 100 }
      #expect(try await database.int("SELECT max(attempts) FROM outbox.delivery") <= 5)
      mended.turnOn()
      // Bring the probe forward rather than wait for it.
      try await database.execute("UPDATE outbox.endpoint_health SET probe_at = clock_timestamp()")
      try await eventually("all have arrived") { listener.accepted().count == 100 }
    }
    #expect(try await database.rows("SELECT state FROM outbox.endpoint_health") == [["closed"]])
    #expect(try await database.int("SELECT count(*) FROM outbox.dead_letter") == 0)
  }

  @Test func pausedEndpointsGetNothingUntilResumed() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let endpoint = try await database.addEndpoint(listener.url())
    try await database.execute("SELECT outbox.pause(\(endpoint))")
    try await withDispatcher(database) { _ in
      try await database.publish(10)
      try await eventually("all are parked") { try await database.int("SELECT count(*) FROM outbox.delivery") == 10 }
      #expect(listener.arrivals.isEmpty)
      try await database.execute("SELECT outbox.resume(\(endpoint))")
      try await eventually("all have arrived") { listener.accepted().count == 10 }
    }
  }

  @Test func whatIsQueuedForAPausedEndpointGoesBackUntried() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in .hang }
    let endpoint = try await database.addEndpoint(listener.url(), options: "max_in_flight => 1, timeout => '5 min'")
    try await withDispatcher(database, gracePeriod: .zero) { _ in
      try await database.publish(10)
      try await eventually("one is in flight") { listener.arrivals.count == 1 }
      try await database.execute("SELECT outbox.pause(\(endpoint))")
      try await eventually("nine are back") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE attempts = 0") == 9
      }
    }
    #expect(listener.arrivals.count == 1)
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery") == 10)
  }
}

/// Off, then on.
final class Switch: Sendable {
  private let signal = StopSignal()
  var isOn: Bool { signal.isSet }
  func turnOn() { signal.raise() }
}
