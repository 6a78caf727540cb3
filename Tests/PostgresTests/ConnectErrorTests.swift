import EmbeddedPostgres
import Foundation
import Testing

@testable import Postgres

/// Whatever is wrong with an address, the message says what, and never shows a password.
@Suite struct ConnectErrorTests {
  private static let unreadable = [
    "postgress://app:hunter2@db/app", "POSTGRES://app:hunter2@db/app", "mysql://app:hunter2@db", "app:hunter2@db",
    "postgres://app:hun/ter2@db/app", "postgres://app:12/hunter2@db:x/app", "postgres://app:a@hunter2@db/app",
    "postgres://app:hunter2%ZZ@db/app", "postgres://app:hunter2%00@db/app", "postgres://app:hunter2@db:port/app",
    "postgres://app:hunter2@db:99999/app", "postgres://app:hunter2@db:0/app", "postgres://app:hunter2@[::1/app",
    "postgres://app:hunter2@[::1]x/app", "postgres://app:hunter2@db/app?hunter2", "postgres://app@db/app?hunter2=1",
    "postgres://app:hunter2@db/app?a=b=c", "host=db password=x hunter2", "host=db password=x hunter2=y",
    "host=db password='hunter2", "host=db hunter2 ", "password=hunter2 port=hunter2",
    "password=hunter2 connect_timeout=hunter2", "password=a host=b@hunter2", "postgres://app:hunter2@db/app\0",
  ]

  @Test(arguments: unreadable) func misreadPasswordIsNotShown(url: String) async throws {
    let error = try await connectError(url)
    #expect(!"\(error)".contains("hunter2") && !"\(error)".contains("ter2"))
    #expect(error.message.hasPrefix("the connection string cannot be read"))
    #expect(error.hint?.contains("postgres://user:password@host:port/database") == true)
    #expect(error.kind == .connection && error.sqlState == "")
  }

  @Test func serverOutOfReach() async throws {
    let closed = try ListeningSocket()
    let port = closed.port
    closed.close()
    let error = try await connectError("postgres://app:hunter2@127.0.0.1:\(port)/app")
    #expect(error.kind == .connection && error.remedy == .reconnect)
    #expect(error.message.contains("port \(port) failed: Connection refused Is the server running on that host"))
    #expect(!"\(error)".contains("hunter2") && !"\(error)".contains("\n"))
  }

  @Test func unknownHost() async throws {
    let error = try await connectError("postgres://app:hunter2@nowhere.invalid/app")
    #expect(error.message.contains("could not translate host name \"nowhere.invalid\" to address"))
    #expect(!"\(error)".contains("hunter2"))
  }

  @Test func missingSocketDirectory() async throws {
    let error = try await connectError("postgres://app:hunter2@%2Fnowhere/app")
    #expect(error.message.contains("/nowhere/.s.PGSQL.5432") && error.message.contains("No such file or directory"))
    #expect(!"\(error)".contains("hunter2"))
  }

  @Test func unknownDatabaseAndUser() async throws {
    let port = try await SharedServer.shared.get().port
    let error = try await connectError("postgres://postgres:hunter2@127.0.0.1:\(port)/elsewhere")
    #expect(error.message.contains("database \"elsewhere\" does not exist") && !"\(error)".contains("hunter2"))
    let unknown = try await connectError("postgres://nobody:hunter2@127.0.0.1:\(port)/postgres")
    #expect(unknown.message.contains("role \"nobody\" does not exist") && !"\(unknown)".contains("hunter2"))
  }

  @Test func allHostsAreNamed() async throws {
    let closed = try ListeningSocket()
    let port = closed.port
    closed.close()
    let error = try await connectError("postgres://app:hunter2@127.0.0.1:\(port),nowhere.invalid/app")
    #expect(error.message.contains("\(port) failed") && error.message.contains("; could not translate host name"))
    #expect(!"\(error)".contains("hunter2") && !"\(error)".contains("\n"))
  }

  @Test func wrongAndMissingPassword() async throws {
    try await withEmbeddedPostgres { server in
      let access = server.dataDirectory.appendingPathComponent("pg_hba.conf")
      let url = server.connectionString
      try await withConnection(to: url) { connection in
        try connection.execute("CREATE ROLE app LOGIN PASSWORD 'right%/@'")
        try Data("host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n".utf8).write(to: access)
        try connection.execute("SELECT pg_reload_conf()")
      }
      let host = "127.0.0.1:\(server.port)/postgres"
      var missing: PostgresError?
      try await eventually("the password being asked for") {
        missing = try await connectError("postgres://app@\(host)?passfile=/nowhere")
        return missing?.hint != nil
      }
      #expect(missing?.message.contains("no password supplied") == true)
      #expect(missing?.hint?.contains("PGPASSWORD") == true)
      let wrong = try await connectError("postgres://app:hunter2@\(host)")
      #expect(wrong.message.contains("password authentication failed for user \"app\""))
      #expect(!"\(wrong)".contains("hunter2") && wrong.remedy == .reconnect)
      try await withConnection(to: "postgres://app:right%25%2F%40@\(host)") { connection in
        try #expect(connection.value("SELECT current_user") == "app")
      }
      try await withConnection(to: "host=127.0.0.1 port=\(server.port) dbname=postgres user=app password=right%/@") {
        try #expect($0.value("SELECT current_user") == "app")
      }
    }
  }
}
