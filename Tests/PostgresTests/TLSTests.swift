import Foundation
import Testing

@testable import EmbeddedPostgres
@testable import Postgres

@Suite struct TLSTests {
  @Test func verifyFullTrustsTheRightServerOnly() async throws {
    let server: EmbeddedPostgres
    do {
      server = try await EmbeddedPostgres.start(.init(tls: true))
    } catch EmbeddedPostgresError.builtWithoutTLS(let directory) {
      try Test.cancel("The PostgreSQL in \(directory) has no TLS")
    }
    let ca = try #require(server.caFile).path
    let base = "port=\(server.port) user=postgres password=hunter2 dbname=postgres"
    let full = "sslmode=verify-full sslrootcert='\(ca)' \(base)"

    for good in [server.connectionString, "host=localhost \(full)", "host=127.0.0.1 \(full)"] {
      try await withConnection(to: good) { connection in
        let tls = try connection.value("SELECT version FROM pg_stat_ssl WHERE ssl AND pid = pg_backend_pid()")
        #expect(tls?.hasPrefix("TLSv1.") == true)
        try #expect(connection.query("SELECT $1", [.text("ä")]).text(0, 0) == "ä")
        #expect(connection.isAlive())
      }
    }

    let elsewhere = try await connectError("host=elsewhere.example hostaddr=127.0.0.1 \(full)")
    #expect(elsewhere.message.contains("does not match host name \"elsewhere.example\""))
    let plain = try await connectError("host=localhost sslmode=disable \(base)")
    #expect(plain.message.contains("no encryption"))
    let other = server.directory.appendingPathComponent("other")
    try FileManager.default.createDirectory(at: other, withIntermediateDirectories: false)
    let stranger = try await ThrowawayAuthority.make(in: other, tools: ToolRunner(directory: other, user: nil))
    let wrong = try await connectError(
      "host=localhost sslmode=verify-full sslrootcert='\(stranger.caFile.path)' \(base)"
    )
    #expect(wrong.message.contains("certificate verify failed"))
    let missing = try await connectError("host=localhost sslmode=verify-full sslrootcert=/nowhere \(base)")
    #expect(missing.message.contains("/nowhere"))
    for error in [elsewhere, plain, wrong, missing] {
      #expect(error.kind == .connection && !"\(error)".contains("hunter2") && !"\(error)".contains("\n"))
    }
    try await server.stop()
  }

  @Test func cancellationWorksOverTLS() async throws {
    try await withEmbeddedPostgres(.init(tls: true)) { server in
      let session = Session(.init(connectionString: server.connectionString, applicationName: "tls"))
      let task = Task { try await session.withConnection { try $0.execute("SELECT pg_sleep(600)") } }
      try await eventually("the statement at work") {
        try await withConnection(to: server.connectionString) {
          try $0.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
        }
      }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
  }
}
