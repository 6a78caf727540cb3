import Foundation
import OutboxStore
import Postgres
import Testing

@Suite struct ReplayTests {
  @Test func replaySendsTheEventsOfAPeriodAgainToOneEndpointOnly() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let (one, two) = (try await worker.client.addEndpoint(), try await worker.client.addEndpoint())
      try await worker.client.publish(5)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      #expect(
        try await worker.client.int("SELECT outbox.replay(\(one), now() - interval '1 h', now() - interval '1 min')")
          == 0
      )
      #expect(
        try await worker.client.int("SELECT outbox.replay(\(one), now() - interval '1 h', types => '{nothing.*}')") == 0
      )
      #expect(try await worker.client.int("SELECT outbox.replay(\(one), now() - interval '1 h')") == 5)
      // What waits already is left alone.
      #expect(try await worker.client.int("SELECT outbox.replay(\(one), now() - interval '1 h')") == 0)
      #expect(try await worker.claim([one, two]).map(\.endpoint) == Array(repeating: one, count: 5))
      // And so is what is in flight.
      #expect(try await worker.client.int("SELECT outbox.replay(\(one), now() - interval '1 h')") == 0)
    }
  }

  @Test func replayOnAnOrderedEndpointKeepsTheOrderOfAKey() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.execute(
        "INSERT INTO outbox.event (type, key, payload) SELECT 'a', 'k', to_jsonb(i) FROM generate_series(1, 4) i"
      )
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      try await worker.client.execute("UPDATE outbox.endpoint SET ordered = true")
      #expect(try await worker.client.int("SELECT outbox.replay(\(endpoint), now() - interval '1 h')") == 4)
      var order: [UUID] = []
      while let next = try await worker.claim([endpoint]).first {
        order.append(next.event.id)
        try await worker.record([next.outcome()])
      }
      #expect(order == cut.direct.map(\.event.id))
    }
  }

  @Test func whatWasNotCutYetIsNotSentTwice() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      #expect(try await worker.client.int("SELECT outbox.replay(\(endpoint), now() - interval '1 h')") == 0)
      #expect(try await worker.client.int("SELECT outbox.resend(id) FROM outbox.event") == 0)
      #expect(try await worker.cut()?.pairs.count == 1)
    }
  }

  @Test func resendTakesADeadLetterBack() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      let cut = try #require(try await worker.cut())
      var outcomes = cut.outcomes()
      outcomes[0].kind = .failed
      outcomes[0].reason = "exhausted"
      try await worker.record(outcomes, finished: [cut.batch!])
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter") == 1)
      #expect(try await worker.client.int("SELECT outbox.resend(id, \(endpoint)) FROM outbox.event") == 1)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter") == 0)
      #expect(try await worker.claim([endpoint]).map(\.attempts) == [0])
    }
  }

  @Test func pingGoesToOneEndpointAndIsNeverCut() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let (one, two) = (try await worker.client.addEndpoint(), try await worker.client.addEndpoint())
      let event = try await worker.client.value("SELECT outbox.ping(\(two))")
      #expect(try await worker.cut() == nil)
      let claimed = try await worker.claim([one, two])
      #expect(claimed.map(\.endpoint) == [two])
      #expect(claimed.map(\.event.type) == ["martlet.ping"])
      #expect(claimed[0].event.id.uuidString.lowercased() == event)
    }
  }

  @Test func mistakesAreNamed() async throws {
    try await withDatabase { database in
      let client = database.client()
      let endpoint = try await client.addEndpoint()
      for call in ["ping(99)", "replay(99, now() - interval '1 h')", "delete_endpoint(99)"] {
        let refusal = try await client.refusal("SELECT outbox.\(call)")
        #expect(refusal.sqlState == "P0002" && refusal.message.contains("99"), "\(call)")
      }
      #expect(try await client.refusal("SELECT outbox.resend(gen_random_uuid())").sqlState == "P0002")
      #expect(try await client.refusal("SELECT outbox.replay(\(endpoint), now(), now())").message.contains("period"))
      #expect(
        try await client.refusal("SELECT outbox.replay(\(endpoint), 'epoch', types => '{or*}')").sqlState == "23514"
      )
    }
  }

  /// The same numbers as RetryPolicy: a change of one must be a change of the other.
  @Test func theRetryScheduleIsTheDispatchersArithmetic() async throws {
    try await withDatabase { database in
      let client = database.client()
      let endpoint = try await client.addEndpoint()
      let pauses = try await client.column(
        "SELECT extract(epoch FROM pause)::int FROM outbox.retry_schedule(\(endpoint)) WHERE attempt > 1"
      )
      #expect(
        pauses.compactMap(Int.init)
          == [5, 15, 45, 135, 405, 1215, 3645, 10_935, 32_805, 43_200, 43_200, 43_200, 43_200, 43_200]
      )
      try await client.execute("UPDATE outbox.endpoint SET max_age = '1 h'")
      #expect(try await client.int("SELECT count(*) FROM outbox.retry_schedule(\(endpoint))") == 7)
      try await client.execute("UPDATE outbox.endpoint SET retry_delays = '[5:6]={1 s,2 s}'")
      let named = "SELECT extract(epoch FROM pause)::int FROM outbox.retry_schedule(\(endpoint)) WHERE attempt > 1"
      #expect(try await client.column(named) == ["1", "2"])
    }
  }

  @Test func deletingAnEndpointNeedsItsBacklogToBeGivenUp() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(3)
      let cut = try #require(try await worker.cut(direct: 1))
      let flying = try await worker.client.refusal("SELECT outbox.delete_endpoint(\(endpoint))")
      #expect(flying.sqlState == "55006" && flying.message.contains("in flight"))
      try await worker.record(cut.outcomes(), finished: [cut.batch!])
      let waiting = try await worker.client.refusal("SELECT outbox.delete_endpoint(\(endpoint))")
      #expect(waiting.sqlState == "55006" && waiting.message.contains("2 deliveries wait"))
      #expect(try await worker.client.int("SELECT outbox.delete_endpoint(\(endpoint), discard_waiting => true)") == 2)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.dead_letter WHERE reason = 'discarded'") == 2)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.endpoint") == 0)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.endpoint_secret") == 0)
      try await worker.client.publish(1)
      #expect(try await worker.cut()?.pairs.isEmpty == true)
    }
  }
}
