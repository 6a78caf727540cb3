import Foundation
import Testing

@testable import EmbeddedPostgres
@testable import Postgres

@Suite(.timeLimit(.minutes(3))) struct FailoverTests {
  @Test func deadHostIsSkipped() async throws {
    let server = try await SharedServer.shared.get()
    let closed = try ListeningSocket()
    let dead = closed.port
    closed.close()
    for url in [
      "postgres://postgres@127.0.0.1:\(dead),127.0.0.1:\(server.port)/postgres",
      "host=nowhere.invalid,127.0.0.1 port=\(server.port),\(server.port) user=postgres dbname=postgres",
    ] {
      try await withConnection(to: url) { connection in
        try #expect(connection.value("SELECT inet_server_port()") == "\(server.port)")
      }
    }
  }

  @Test func silentHostIsSkippedAfterTheConnectTimeout() async throws {
    let (server, silent) = try await (SharedServer.shared.get(), ListeningSocket())
    var configuration = ConnectionConfiguration(
      connectionString: "postgres://postgres@127.0.0.1:\(silent.port),127.0.0.1:\(server.port)/postgres"
    )
    configuration.connectTimeout = .zero
    try await Session(configuration).withConnection { connection in
      try #expect(connection.value("SELECT inet_server_port()") == "\(server.port)")
    }
    #expect(silent.hasCaller)
    configuration.connectionString = "postgres://app:hunter2@127.0.0.1:\(silent.port)/postgres"
    let lonely = Session(configuration)
    let error = await #expect(throws: PostgresError.self) { try await lonely.withConnection { _ in } }
    #expect(error?.message.contains("timeout expired") == true && error?.kind == .connection)
    silent.close()
  }

  @Test func standbyIsSkippedAndPromotionFollowed() async throws {
    try await withEmbeddedPostgres { primary in
      try await withEmbeddedPostgres { standby in
        try await standby.follow(primary)
        let hosts = "postgres://postgres@127.0.0.1:\(standby.port),127.0.0.1:\(primary.port)/postgres"
        let port = "SELECT inet_server_port()"
        let session = Session(.init(connectionString: hosts))
        try await #expect(session.withConnection { try $0.value(port) } == "\(primary.port)")
        try await withConnection(to: hosts, requiresWritable: false) { connection in
          try #expect(connection.value(port) == "\(standby.port)")
          let error = try postgresError { try connection.execute("CREATE TABLE t ()") }
          #expect(error.sqlState == "25006" && error.remedy == .reconnect)
        }
        let refused = try await connectError(standby.connectionString)
        #expect(refused.message.contains("read-only") && refused.remedy == .reconnect)

        try await primary.halt(.immediate)
        await #expect(throws: PostgresError.self) { try await session.withConnection { _ in } }
        try await withConnection(to: standby.connectionString, requiresWritable: false) { connection in
          try connection.execute("SELECT pg_promote()")
        }
        try await eventually("the session on the new primary") {
          (try? await session.withConnection { try $0.value(port) }) == "\(standby.port)"
        }
        try await session.withConnection { try $0.execute("CREATE TABLE t ()") }
      }
    }
  }
}
