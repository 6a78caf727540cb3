import Foundation
import OutboxStore
import Postgres
import Testing

/// The rule that makes the cut exact, one case a test. The numbers in the payloads say what was cut, in which order.
@Suite struct SnapshotRuleTests {
  @Test func lateCommitterDelaysOnlyItsOwnEvents() async throws {
    try await withDatabase { database in
      let (late, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await late.execute("BEGIN")
      try await late.publish(2, from: 1)
      try await quick.publish(2, from: 3)
      #expect(try await worker.drain().numbers == [3, 4])
      try await quick.publish(2, from: 5)
      #expect(try await worker.drain().numbers == [5, 6])
      try await late.publish(1, from: 7)
      try await late.execute("COMMIT")
      try await quick.publish(1, from: 8)
      #expect(try await worker.drain().numbers == [1, 2, 7, 8])
      #expect(try await worker.drain().numbers == [])
    }
  }

  /// The transaction has its id, and nothing in the log, while the cut passes it.
  @Test func transactionThatPublishesAfterTheCutPassedItIsCut() async throws {
    try await withDatabase { database in
      let (early, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await early.execute("BEGIN; SELECT pg_current_xact_id()")
      try await quick.publish(1, from: 1)
      #expect(try await worker.drain().numbers == [1])
      try await early.publish(1, from: 2)
      try await early.execute("COMMIT")
      #expect(try await worker.drain().numbers == [2])
    }
  }

  @Test func rolledBackTransactionIsNeverCut() async throws {
    try await withDatabase { database in
      let (writer, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await writer.execute("BEGIN")
      try await writer.publish(3)
      try await quick.publish(1, from: 9)
      #expect(try await worker.drain().numbers == [9])
      try await writer.execute("ROLLBACK")
      #expect(try await worker.drain().numbers == [])
      try await quick.publish(1, from: 10)
      #expect(try await worker.drain().numbers == [10])
    }
  }

  @Test func savepointsBelongToTheirTransaction() async throws {
    try await withDatabase { database in
      let (writer, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await writer.execute("BEGIN; SAVEPOINT a")
      try await writer.publish(1, from: 1)
      try await writer.execute("SAVEPOINT b")
      try await writer.publish(1, from: 2)
      try await writer.execute("ROLLBACK TO b; SAVEPOINT c")
      try await writer.publish(1, from: 3)
      try await writer.execute("RELEASE c")
      try await quick.publish(1, from: 4)
      #expect(try await worker.drain().numbers == [4])
      try await writer.publish(1, from: 5)
      try await writer.execute("COMMIT")
      #expect(try await worker.drain().numbers == [1, 3, 5])
    }
  }

  @Test func preparedTransactionIsCutWhenItCommits() async throws {
    try await withDatabase { database in
      let (writer, worker) = (database.client(), try await Worker(database))
      try await writer.addEndpoint()
      for (name, first) in [("\(database.name)_kept", 1), ("\(database.name)_dropped", 2)] {
        try await writer.execute("BEGIN")
        try await writer.publish(1, from: first)
        try await writer.execute("PREPARE TRANSACTION '\(name)'")
      }
      try await writer.publish(1, from: 3)
      #expect(try await worker.drain().numbers == [3])
      try await writer.execute("ROLLBACK PREPARED '\(database.name)_dropped'")
      #expect(try await worker.drain().numbers == [])
      try await writer.execute("COMMIT PREPARED '\(database.name)_kept'")
      #expect(try await worker.drain().numbers == [1])
    }
  }

  /// The limit falls into one transaction, whose rows all have the same tx; and into those that were in progress.
  @Test(arguments: [1, 2, 3, 7]) func limitInsideOneTransactionLosesAndRepeatsNothing(limit: Int) async throws {
    try await withDatabase { database in
      let (first, second, quick, worker) = (
        database.client(), database.client(), database.client(), try await Worker(database)
      )
      try await quick.addEndpoint()
      try await first.execute("BEGIN")
      try await first.publish(5, from: 1)
      try await second.execute("BEGIN")
      try await second.publish(5, from: 6)
      try await quick.publish(5, from: 11)
      #expect(try await worker.drain(events: limit).numbers == Array(11...15))
      try await first.execute("COMMIT")
      try await second.execute("COMMIT")
      try await quick.publish(5, from: 16)
      #expect(try await worker.drain(events: limit).numbers == Array(1...10) + Array(16...20))
      #expect(try await worker.drain(events: limit).numbers == [])
    }
  }

  /// Between two parts of one target others commit, some with a lower transaction id than what was cut already.
  @Test func commitsWhileATargetIsHalfCutAreCutWithTheNext() async throws {
    try await withDatabase { database in
      let (late, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await late.execute("BEGIN")
      try await late.publish(4, from: 1)
      try await quick.publish(6, from: 5)
      #expect(try await worker.cut(events: 4).map { [$0].numbers } == [5, 6, 7, 8])
      try await late.execute("COMMIT")
      try await quick.publish(2, from: 11)
      var cut: [Int] = []
      try await eventually("the rest") {
        if let next = try await worker.cut(events: 4) { cut += [next].numbers }
        return cut.count == 8
      }
      #expect(cut == [9, 10, 1, 2, 3, 4, 11, 12])
    }
  }

  @Test func transactionIDsWithoutEventsAreSteppedOver() async throws {
    try await withDatabase { database in
      let (quick, worker) = (database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await quick.publish(1, from: 1)
      for _ in 0..<20 { try await quick.execute("SELECT pg_current_xact_id()") }
      try await quick.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
      try await quick.publish(1, from: 2)
      #expect(try await worker.drain().numbers == [1, 2])
    }
  }

  @Test(arguments: ["REPEATABLE READ", "SERIALIZABLE"])
  func publisherWithAnOldSnapshotIsCutOnce(isolation: String) async throws {
    try await withDatabase { database in
      let (writer, quick, worker) = (database.client(), database.client(), try await Worker(database))
      try await quick.addEndpoint()
      try await writer.execute("BEGIN ISOLATION LEVEL \(isolation); SELECT count(*) FROM outbox.event")
      try await quick.publish(1, from: 1)
      #expect(try await worker.drain().numbers == [1])
      try await writer.publish(1, from: 2)
      try await quick.publish(1, from: 3)
      #expect(try await worker.drain().numbers == [3])
      try await writer.execute("COMMIT")
      #expect(try await worker.drain().numbers == [2])
    }
  }

  @Test func bulkInsertIsCutInTheOrderOfItsInsertion() async throws {
    try await withDatabase { database in
      let (writer, worker) = (database.client(), try await Worker(database))
      try await writer.addEndpoint()
      try await writer.publish(100_000)
      #expect(try await worker.drain(events: 3_333).numbers == Array(1...100_000))
    }
  }
}

extension [Cut] {
  var numbers: [Int] { flatMap { $0.direct.map(\.event.number) } }
}
