import EmbeddedPostgres
import Foundation
import Testing

@testable import Postgres

@Suite struct ConnectionStringTests {
  @Test func urlKeywordsAndSocketLeadToTheSameServer() async throws {
    let server = try await SharedServer.shared.get()
    let (port, directory) = (server.port, server.socketDirectory.path)
    let encoded = directory.replacing("/", with: "%2F")
    for (string, isLocal) in [
      ("postgres://postgres@127.0.0.1:\(port)/postgres", false),
      ("postgresql://postgres@127.0.0.1:\(port)/postgres?", false),
      ("host=127.0.0.1 port=\(port) user=postgres dbname=postgres", false),
      ("hostaddr=127.0.0.1 host='elsewhere' port = \(port) user=postgres dbname='postgres'", false),
      ("postgres://postgres@\(encoded):\(port)/postgres", true),
      ("postgres:///postgres?host=\(encoded)&port=\(port)&user=postgres", true),
      ("host='\(directory)' port=\(port) user=postgres dbname=postgres", true),
    ] {
      try await withConnection(to: string) { connection in
        try #expect(connection.value("SHOW port") == "\(port)", "\(string)")
        try #expect((connection.value("SELECT inet_client_addr()") == nil) == isLocal, "\(string)")
        #expect(connection.serverVersion / 10_000 == server.majorVersion)
      }
    }
  }

  @Test func namesArePercentDecodedAndNeverSQL() async throws {
    let server = try await SharedServer.shared.get()
    let name = uniqueName("ä b'\"; DROP -- %@?")
    let url = try await server.createDatabase(name)
    try await withConnection(to: url) { try #expect($0.value("SELECT current_database()") == name) }
    let quoted = name.replacing("\\", with: "\\\\").replacing("'", with: "\\'")
    try await withConnection(to: "host=127.0.0.1 port=\(server.port) user=postgres dbname='\(quoted)'") {
      try #expect($0.value("SELECT current_database()") == name)
    }
    let options = server.connectionString + "?options=-c%20work_mem%3D5MB"
    try await withConnection(to: options) { try #expect($0.value("SHOW work_mem") == "5MB") }
  }
}
