import Foundation
import OutboxStore
import Postgres
import Testing

/// A record whose reply was lost is sent again; nobody knows whether it was committed.
@Suite struct RepeatedRecordTests {
  @Test func repeatedRecordDoesNothingTwice() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(4)
      let cut = try #require(try await worker.cut(direct: 2))
      let claimed = try await worker.claim([endpoint])
      var outcomes = cut.outcomes() + claimed.map { $0.outcome(.failed) }
      outcomes[0].kind = .failed
      outcomes[0].retryIn = .seconds(60)
      try await worker.record(outcomes, finished: [cut.batch!])
      let state = """
        SELECT (SELECT count(*) FROM outbox.attempt), (SELECT sum(attempts) FROM outbox.delivery),
          (SELECT consecutive_failures FROM outbox.endpoint_health), (SELECT count(*) FROM outbox.batch)
        """
      let before = try await worker.client.rows(state)
      try await worker.record(outcomes, finished: [cut.batch!], again: true)
      #expect(try await worker.client.rows(state) == before)
    }
  }

  @Test func repeatedRecordThatWasLostIsDone() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(2)
      let cut = try #require(try await worker.cut())
      try await worker.record(cut.outcomes(), finished: [cut.batch!], again: true)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.attempt") == 2)
      #expect(try await worker.client.int("SELECT count(*) FROM outbox.batch") == 0)
    }
  }

  /// A delivery that is handed back twice by the same dispatcher leaves two equal rows of history: the second record,
  /// repeated, must not be taken for the first.
  @Test func deliveryHandedBackTwiceIsNotMistakenForARepetition() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint()
      try await worker.client.publish(1)
      _ = try await worker.cut(direct: 0)
      for again in [false, true] {
        let claimed = try await worker.claim([endpoint])
        #expect(claimed.count == 1)
        var outcomes = claimed.map { $0.outcome(.returned) }
        outcomes[0].retryIn = .zero
        try await worker.record(outcomes, again: again)
      }
      #expect(try await worker.claim([endpoint]).count == 1)
    }
  }
}
