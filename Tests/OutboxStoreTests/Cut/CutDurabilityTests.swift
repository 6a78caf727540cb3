import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres
import Testing

/// On servers of their own: restarts, crashes, and what an idle cut costs.
@Suite(.serialized) struct CutDurabilityTests {
  @Test func idleCutWritesNothing() async throws {
    try await withOwnServer(["wal_level": "minimal", "max_wal_senders": "0", "autovacuum": "off"]) { database in
      let worker = try await Worker(database)
      try await worker.client.addEndpoint()
      try await worker.client.publish(10)
      _ = try await worker.drain()
      let state = """
        SELECT pg_current_wal_insert_lsn() || ' ' || pg_snapshot_xmax(pg_current_snapshot()) || ' ' ||
          (SELECT count(*) FROM outbox.position)
        """
      // Nothing else runs here but the server's own background processes; what they still have to write, and pages that
      // are pruned when they are first read, are over in the end. A cut that wrote would write every time.
      try await eventually("a hundred cuts write nothing") {
        try await worker.client.execute("CHECKPOINT")
        let before = try await worker.client.value(state)
        for _ in 0..<100 { #expect(try await worker.cut() == nil) }
        return try await worker.client.value(state) == before
      }
    }
  }

  @Test func preparedTransactionSurvivesARestartAndIsCut() async throws {
    try await withOwnServer { database in
      let client = database.client()
      let worker = try await Worker(database)
      try await client.addEndpoint()
      for (name, first) in [("kept", 1), ("dropped", 2)] {
        try await client.execute("BEGIN")
        try await client.publish(1, from: first)
        try await client.execute("PREPARE TRANSACTION '\(name)'")
      }
      try await client.publish(1, from: 3)
      #expect(try await worker.drain().numbers == [3])
      for mode in [EmbeddedPostgres.StopMode.fast, .immediate] {
        await client.session.disconnect()
        await worker.client.session.disconnect()
        try await database.server.restart(mode)
        #expect(try await worker.drain().numbers == [])
      }
      // A crash asks for this; a restart in order does not.
      _ = try await worker.client.store { try $0.resync(dispatcher: worker.id, held: []) }
      try await client.publish(1, from: 4)
      try await client.execute("ROLLBACK PREPARED 'dropped'")
      try await client.execute("COMMIT PREPARED 'kept'")
      #expect(try await worker.drain().numbers == [1, 4])
    }
  }

  /// What the crash takes from cutters that do not wait for the disk is cut again; what publishers were told was
  /// committed is all there.
  @Test func crashLosesNoEventOfCuttersThatDoNotWaitForTheDisk() async throws {
    let seed = SeededGenerator.printedSeed()
    try await withOwnServer { database in
      var generator = SeededGenerator(seed)
      try await database.client().addEndpoint()
      let received = Received()
      let worker = try await Worker(database)
      for round in 0..<5 {
        let crashAfter = Int.random(in: 2...25, using: &generator)
        await withTaskGroup(of: Void.self) { group in
          for writer in 0..<3 {
            group.addTask {
              let client = database.client()
              var next = round * 1_000_000 + writer * 100_000
              // Ends with the connection. Whether the last one was committed nobody knows.
              while (try? await client.publish(5, from: next)) != nil {
                await received.published(next..<next + 5)
                next += 5
              }
            }
          }
          group.addTask {
            _ = try? await worker.client.execute("SET synchronous_commit = off")
            do {
              while true {
                let cut = try await worker.cut()
                await received.cut((cut.map { [$0] } ?? []).numbers)
              }
            } catch {
              #expect((error as? PostgresError)?.remedy == .reconnect, "\(error)")
            }
          }
          group.addTask {
            try? await eventually("\(crashAfter) cuts", within: .seconds(20)) { await received.cuts >= crashAfter }
            try? await database.server.halt(.immediate)
          }
        }
        await received.reset()
        try await database.server.resume()
        // The crash emptied outbox.witness: no step before what is held and what is there were compared.
        await #expect { try await worker.claim([1]) } throws: {
          ($0 as? PostgresError)?.sqlState == OutboxState.mustResync
        }
        let lost = try await worker.client.store { try $0.resync(dispatcher: worker.id, held: []) }
        #expect(lost >= 0)
      }
      await received.cut(try await worker.drain().numbers)
      let endpoint: Int64 = 1
      while true {
        let claimed = try await worker.claim([endpoint], slots: 10_000)
        if claimed.isEmpty { break }
        await received.cut(claimed.map(\.event.number))
      }
      let missing = await received.missing
      #expect(missing.isEmpty)
      let rows = Set(try await worker.client.column("SELECT payload ->> 'n' FROM outbox.event").compactMap(Int.init))
      #expect(await received.all == rows)
    }
  }
}

private actor Received {
  private var committed: Set<Int> = []
  private(set) var all: Set<Int> = []
  private(set) var cuts = 0
  func published(_ numbers: Range<Int>) { committed.formUnion(numbers) }
  func cut(_ numbers: [Int]) {
    all.formUnion(numbers)
    if !numbers.isEmpty { cuts += 1 }
  }
  func reset() { cuts = 0 }
  var missing: Set<Int> { committed.subtracting(all) }
}
