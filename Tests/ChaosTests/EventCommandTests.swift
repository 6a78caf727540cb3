import Foundation
import TestSupport
import Testing

@Suite struct EventCommandTests {
  @Test func anEventForLaterIsSentThenAndNotBefore() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func publish(notBefore: String) async throws -> MartletProcess.Result {
      try await MartletProcess.run(
        ["event", "publish", "order.due", "{}", "--not-before", notBefore],
        environment: environment
      )
    }
    for time in ["soon", "infinity"] {
      let refused = try await publish(notBefore: time)
      #expect(refused.status == 1 && refused.errors.contains("refused"), "\(refused.errors)")
    }
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    // One is due in an hour, the other while somebody waits for it: on a busy machine perhaps before the dispatcher is there.
    for delay in ["1 h", "2 s"] {
      let time = try #require(try await database.rows("SELECT clock_timestamp() + interval '\(delay)'")[0][0])
      #expect(try await publish(notBefore: time).status == 0)
    }
    let dispatcher = try MartletProcess.dispatcher(database)
    try await eventually("one has arrived, and is recorded") {
      try await database.int("SELECT count(*) FROM outbox.attempt") == 1
    }
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery_status WHERE status = 'waiting'") == 1)
    #expect(listener.accepted().count == 1)
    let early = "SELECT count(*) FROM outbox.attempt a JOIN outbox.event e ON e.id = a.event_id WHERE at < not_before"
    #expect(try await database.int(early) == 0)
    dispatcher.signal(SIGTERM)
    #expect(await dispatcher.waitForExit() == 0)
  }
}
