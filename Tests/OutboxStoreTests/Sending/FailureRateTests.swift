import Foundation
import OutboxStore
import Postgres
import Testing

/// The circuit breaker on the part of failures. Time is moved in the rows, never waited for.
@Suite struct FailureRateTests {
  /// Records one outcome after the other, alternately of two dispatchers: f failed, d delivered.
  private func record(_ outcomes: String, _ workers: [Worker]) async throws {
    for (index, letter) in outcomes.enumerated() where letter != " " {
      let worker = workers[index % workers.count]
      try await worker.client.publish(1)
      var cut: Cut?
      try await eventually("a cut") {
        cut = try await worker.cut()
        return cut != nil
      }
      guard let cut, let batch = cut.batch else { continue }
      try await worker.record(cut.outcomes(letter == "d" ? .delivered : .failed), finished: [batch])
    }
  }

  private func health(_ client: Client) async throws -> [String?] {
    try await client.rows(
      "SELECT state, consecutive_failures, window_started_at IS NOT NULL, window_failed, window_succeeded FROM outbox.endpoint_health"
    ).first ?? []
  }

  @Test func opensWhenHalfOfEnoughOutcomesFailed() async throws {
    try await withDatabase { database in
      let workers = [try await Worker(database), try await Worker(database)]
      let client = workers[0].client
      try await client.addEndpoint("failure_threshold => 4")
      try await record("dddd fdd fdd f", workers)
      #expect(try await health(client) == ["closed", "1", "t", "3", "4"], "begins with a failure")
      // Eight, and fewer than half of them failures.
      try await record("d", workers)
      #expect(try await health(client) == ["closed", "0", "t", "3", "5"])
      try await record("f", workers)
      #expect(try await health(client) == ["closed", "1", "t", "4", "5"])
      try await record("f", workers)
      #expect(try await health(client) == ["open", "2", "t", "5", "5"], "what it opened on stays to be seen")
      let found = try await client.findings().filter { $0.finding == "dead endpoint" }
      #expect(found.count == 1 && found[0].detail.hasPrefix("5 of 10 deliveries failed in the "))
      #expect(
        try await client.rows("SELECT circuit, window_failed, window_succeeded FROM outbox.endpoint_status")
          == [["open", "5", "5"]]
      )
    }
  }

  /// What was under way when the rate opened it says no more than what opened it: only a success while a probe is out
  /// closes it.
  @Test func lateSuccessDoesNotCloseItAndAProbeDoes() async throws {
    try await withDatabase { database in
      let workers = [try await Worker(database), try await Worker(database)]
      let client = workers[0].client
      let endpoint = try await client.addEndpoint("failure_threshold => 2")
      try await client.publish(3)
      let late = try #require(try await workers[0].cut())
      try await record("fdfd", workers)
      #expect(try await health(client)[0] == "open")
      #expect(try await workers[0].record(late.outcomes(), finished: [late.batch!]).isEmpty)
      #expect(try await health(client) == ["open", "0", "t", "2", "2"])
      #expect(try await workers[1].claim([endpoint]).isEmpty)

      try await client.execute("UPDATE outbox.endpoint_health SET probe_at = clock_timestamp()")
      async let one = workers[0].claim([endpoint])
      async let two = workers[1].claim([endpoint])
      let probes = (try await one, try await two)
      #expect(probes.0.count + probes.1.count == 1, "one probe, of one dispatcher")
      let (prober, probe) = probes.0.isEmpty ? (workers[1], probes.1[0]) : (workers[0], probes.0[0])
      #expect(try await prober.record([probe.outcome()]).map(\.circuit) == ["closed"])
      #expect(try await health(client) == ["closed", "0", "f", "0", "0"])
    }
  }

  /// A failure of something sent long before comes in while the probe is out: the probe's success counts all the same
  /// where failures in a row opened it; where the rate did, the next probe closes it. Never are two probes out at once.
  @Test(arguments: [("ffff", 0), ("fdfd", 1)]) func lateFailureDuringAProbe(outcomes: String, furtherProbes: Int)
    async throws
  {
    try await withDatabase { database in
      let workers = [try await Worker(database), try await Worker(database)]
      let client = workers[0].client
      let endpoint = try await client.addEndpoint(
        "failure_threshold => 2" + (furtherProbes == 0 ? ", failure_rate => NULL" : "")
      )
      try await client.publish(1)
      let late = try #require(try await workers[0].cut())
      try await record(outcomes, workers)
      #expect(try await health(client)[0] == "open")
      let pass = "UPDATE outbox.endpoint_health SET probe_at = clock_timestamp()"
      try await client.execute(pass)
      let probe = try await workers[1].claim([endpoint])
      #expect(probe.count == 1)
      try await workers[0].record(late.outcomes(.failed), finished: [late.batch!])
      #expect(try await workers[0].claim([endpoint]).isEmpty, "the next probe has its time")
      try await workers[1].record(probe.map { $0.outcome() })
      for _ in 0..<furtherProbes {
        #expect(try await health(client)[0] == "open")
        try await client.execute(pass)
        try await workers[0].record(try await workers[0].claim([endpoint]).map { $0.outcome() })
      }
      #expect(try await health(client)[0] == "closed")
    }
  }

  @Test func probesThatFailKeepItOpenAtGrowingIntervals() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("failure_threshold => 1")
      try await record("f", [worker])
      let attempts = "SELECT max(attempts) FROM outbox.delivery"
      try await worker.client.publish(5, from: 10)
      _ = try await worker.drain()
      var pauses: [Int] = []
      for minutes in [1, 2, 4] {
        try await worker.client.execute(
          "UPDATE outbox.endpoint_health SET opened_at = clock_timestamp() - interval '\(minutes) min', probe_at = now()"
        )
        try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed) })
        pauses.append(
          try await worker.client.int(
            "SELECT round(extract(epoch FROM probe_at - clock_timestamp()) / 60) FROM outbox.endpoint_health"
          )
        )
      }
      #expect(pauses == [1, 2, 4])
      #expect(try await worker.client.int(attempts) <= 4)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.delivery WHERE attempts = 0") >= 2)
    }
  }

  @Test func windowThatHasPassedIsForgotten() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      try await client.addEndpoint("failure_threshold => 3")
      let pass = "UPDATE outbox.endpoint_health SET window_started_at = clock_timestamp() - interval '61 s'"
      try await record("fdf", [worker])
      try await client.execute(pass)
      try await record("d", [worker])
      #expect(try await health(client) == ["closed", "0", "f", "0", "0"])
      try await record("fdfdf", [worker])
      try await client.execute(pass)
      try await record("f", [worker])
      #expect(try await health(client) == ["closed", "2", "t", "1", "0"], "a failure begins the next one")
    }
  }

  @Test func withoutARateOnlyFailuresInARowCount() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("failure_threshold => 3, failure_rate => NULL")
      try await record("ffdffdffdffd", [worker])
      #expect(try await health(worker.client) == ["closed", "0", "f", "0", "0"])
    }
  }

  /// Nothing is written for a success unless a window is open; then its row is, and no other.
  @Test func healthyEndpointWritesNothing() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      let version = "SELECT xmin FROM outbox.endpoint_health"
      try await record("fd", [worker])
      try await worker.client.execute(
        "UPDATE outbox.endpoint_health SET window_started_at = clock_timestamp() - interval '1 h'"
      )
      try await record("d", [worker])
      let written = try await worker.client.value(version)
      try await record("dddd", [worker])
      #expect(try await worker.client.value(version) == written)
    }
  }

  @Test func oneRecordWithManyOutcomesCountsThemInTheirOrder() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("failure_threshold => 4")
      try await worker.client.publish(9)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes()
      for index in [2, 4, 6] {  // d d f d f d f d d
        outcomes[index].kind = .failed
        outcomes[index].retryIn = .zero
      }
      try await worker.record(outcomes, finished: [cut.batch!])
      #expect(try await health(worker.client) == ["closed", "0", "t", "3", "4"])
    }
  }
}

/// An endpoint of which nothing but failures come is disabled in the end.
@Suite struct AutoDisableTests {
  @Test func nothingButFailuresForSoLongDisables() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let endpoint = try await client.addEndpoint("disable_after => '1 h'")
      try await client.publish(5)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(.failed) { $0.error = "refused" }, finished: [cut.batch!])
      try await client.execute(
        "UPDATE outbox.endpoint_health SET failing_since = clock_timestamp() - interval '59 min'"
      )
      var claimed = try await worker.claim([endpoint])
      try await worker.record([claimed[0].outcome(.failed)])
      #expect(try await client.value("SELECT state FROM outbox.endpoint") == "enabled")
      try await client.execute(
        "UPDATE outbox.endpoint_health SET failing_since = clock_timestamp() - interval '61 min'"
      )
      #expect(try await worker.record([claimed[1].outcome(.failed)]).map(\.state) == ["disabled"])
      let row = try await client.rows(
        "SELECT state, disabled_at IS NOT NULL, disabled_because LIKE 'nothing but failures came of it since 20%' FROM outbox.endpoint_status"
      )
      #expect(row == [["disabled", "t", "t"]])
      // The backlog is kept, new events pass by, and the reconciler says so.
      try await worker.record(
        claimed[2...].map {
          var outcome = $0.outcome(.returned)
          outcome.retryIn = .zero
          return outcome
        }
      )
      try await client.publish(1, from: 99)
      _ = try await worker.drain()
      #expect(try await client.int("SELECT count(*) FROM outbox.delivery") == 5)
      let found = try await client.findings().map(\.finding)
      #expect(found.contains("endpoint disabled by itself") && found.contains("disabled endpoint with a backlog"))
      #expect(try await client.rows("SELECT missing FROM outbox.conservation('-infinity')") == [["0"]])

      // Enabled again, it has as much time again.
      try await client.execute("SELECT outbox.resume(\(endpoint))")
      claimed = try await worker.claim([endpoint])
      #expect(claimed.count == 5)
      try await worker.record([claimed[0].outcome(.failed)])
      #expect(try await client.value("SELECT state FROM outbox.endpoint") == "enabled")
    }
  }

  @Test func enablingByHandGivesItTimeToo() async throws {
    try await withDatabase { database in
      let (worker, endpoint) = try await disabled(database)
      try await worker.client.execute("UPDATE outbox.endpoint SET state = 'enabled'")
      try await worker.client.execute(
        "UPDATE outbox.endpoint_health SET probe_at = clock_timestamp() WHERE state = 'open'"
      )
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed) })
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint") == "enabled")
    }
  }

  @Test(arguments: [("disable_after => NULL", "f"), ("disable_after => '1 h'", "fd")])
  func neverWithoutATimeNorAfterASuccess(options: String, outcomes: String) async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("\(options), failure_threshold => 100")
      try await worker.client.publish(4)
      _ = try await worker.cut(direct: 0)
      let claimed = try await worker.claim([endpoint])
      try await worker.record([claimed[0].outcome(.failed)])
      try await worker.client.execute("UPDATE outbox.endpoint_health SET failing_since = now() - interval '300 days'")
      if outcomes == "fd" { try await worker.record([claimed[1].outcome()]) }
      try await worker.record([claimed[2].outcome(.failed)])
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint") == "enabled")
    }
  }

  /// An operator who paused it has decided.
  @Test func pausedEndpointIsLeftAlone() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      _ = try await worker.cut(direct: 0)
      let claimed = try await worker.claim([endpoint])
      try await worker.record([claimed[0].outcome(.failed)])
      try await worker.client.execute(
        "UPDATE outbox.endpoint_health SET failing_since = now() - interval '300 days'; SELECT outbox.pause(\(endpoint))"
      )
      try await worker.record([claimed[1].outcome(.failed)])
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint") == "paused")
    }
  }

  private func disabled(_ database: Database) async throws -> (Worker, Int64) {
    let worker = try await Worker(database)
    let endpoint = try await worker.client.addEndpoint("failure_threshold => 1")
    try await worker.client.publish(2)
    _ = try await worker.cut(direct: 0)
    let claimed = try await worker.claim([endpoint])
    try await worker.record([claimed[0].outcome(.failed)])
    try await worker.client.execute("UPDATE outbox.endpoint_health SET failing_since = now() - interval '300 days'")
    try await worker.record([claimed[1].outcome(.failed)])
    #expect(try await worker.client.value("SELECT state FROM outbox.endpoint") == "disabled")
    return (worker, endpoint)
  }
}
