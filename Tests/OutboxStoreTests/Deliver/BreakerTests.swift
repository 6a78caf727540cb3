import Foundation
import OutboxStore
import Postgres
import Testing

/// The circuit breaker. Time is moved in the rows, never waited for.
@Suite struct BreakerTests {
  @Test func opensAtTheThresholdProbesAndCloses() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let client = worker.client
      let endpoint = try await client.addEndpoint("failure_threshold => 3")
      try await client.publish(10)
      let cut = try #require(try await worker.cut(direct: 2))
      #expect(try await worker.record(cut.outcomes(.failed), finished: [cut.batch!]).isEmpty)
      #expect(try await state(client) == ["closed", "2"])
      var claimed = try await worker.claim([endpoint], slots: 2)
      let changes = try await worker.record(claimed.map { $0.outcome(.failed) })
      #expect(changes.map(\.circuit) == ["open"])
      #expect(try await state(client) == ["open", "4"])

      // Behind it nothing moves, and new events are parked.
      #expect(try await worker.claim([endpoint]).isEmpty)
      try await client.publish(1, from: 99)
      #expect(try await worker.drain().map(\.parked) == [1])
      let wait = try await client.store { try $0.waiting() }
      #expect(wait.count == 1 && wait[0].dueIn > .zero)

      // The probe is one delivery, given to one dispatcher.
      try await passProbeTime(client)
      let other = try await Worker(database)
      claimed = try await worker.claim([endpoint])
      #expect(claimed.count == 1)
      #expect(try await other.claim([endpoint]).isEmpty)
      #expect(try await state(client)[0] == "half_open")
      try await worker.record(claimed.map { $0.outcome(.failed) })
      #expect(try await state(client) == ["open", "5"])
      #expect(try await worker.claim([endpoint]).isEmpty)

      try await passProbeTime(client)
      claimed = try await worker.claim([endpoint])
      #expect(try await worker.record(claimed.map { $0.outcome() }).map(\.circuit) == ["closed"])
      #expect(try await state(client) == ["closed", "0"])
      let rest = try await worker.claim([endpoint])
      #expect(rest.count == 10)
      // Only what was tried has attempts: 2 at the cut, 2 claimed, 1 or 2 probes that failed.
      #expect(rest.filter { $0.attempts > 0 }.count <= 5)
      #expect(try await client.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'failed'") == 5)
      #expect(rest.filter { $0.event.number == 99 }.map(\.attempts) == [0])
    }
  }

  @Test func pauseBetweenProbesGrowsWithTheOutage() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("failure_threshold => 1")
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(.failed), finished: [cut.batch!])
      let pause = "SELECT round(extract(epoch FROM probe_at - clock_timestamp())) FROM outbox.endpoint_health"
      #expect(try await worker.client.int(pause) == 5)
      for (openFor, expected) in [("12 s", 12), ("1 min", 60), ("3 hours", 300)] {
        try await worker.client.execute(
          "UPDATE outbox.endpoint_health SET opened_at = clock_timestamp() - interval '\(openFor)', probe_at = now()"
        )
        try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed) })
        // The statements themselves take a while; what counts is the scale.
        #expect(abs(try await worker.client.int(pause) - expected) <= 3)
      }
    }
  }

  @Test func lostProbeIsRepeated() async throws {
    try await withDatabase { database in
      let (dead, heir) = (try await Worker(database), try await Worker(database))
      let endpoint = try await dead.client.addEndpoint("failure_threshold => 1")
      try await dead.client.publish(1)
      let cut = try #require(try await dead.cut())
      try await dead.record(cut.outcomes(.failed), finished: [cut.batch!])
      try await passProbeTime(dead.client)
      #expect(try await dead.claim([endpoint]).count == 1)
      try await dead.expire()
      _ = try await heir.client.store { try $0.recover() }
      #expect(try await heir.claim([endpoint]).isEmpty)
      try await passProbeTime(heir.client)
      #expect(try await heir.claim([endpoint]).count == 1)
    }
  }

  @Test func successAmongFailuresStartsTheCountAnew() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint("failure_threshold => 3")
      try await worker.client.publish(4)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes(.failed)
      outcomes[2].kind = .delivered
      try await worker.record(outcomes, finished: [cut.batch!])
      #expect(try await state(worker.client) == ["closed", "1"])
    }
  }

  @Test func healthyEndpointHasNoRow() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(4)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.endpoint_health") == 0)
    }
  }

  @Test func resumeClosesTheCircuit() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("failure_threshold => 1")
      try await worker.client.publish(3)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(.failed), finished: [cut.batch!])
      #expect(try await worker.claim([endpoint]).isEmpty)
      try await worker.client.execute("SELECT outbox.resume(\(endpoint))")
      #expect(try await worker.claim([endpoint]).count == 3)
    }
  }

  private func state(_ client: Client) async throws -> [String?] {
    try await client.rows("SELECT state, consecutive_failures FROM outbox.endpoint_health")[0]
  }

  private func passProbeTime(_ client: Client) async throws {
    try await client.execute(
      "UPDATE outbox.endpoint_health SET probe_at = clock_timestamp() WHERE probe_at IS NOT NULL"
    )
  }
}
