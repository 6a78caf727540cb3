import Foundation
import Testing

@testable import EmbeddedPostgres

@Suite struct FailureTests {
  @Test func badSettingIsToldFromTheLog() async throws {
    try await withTemporaryDirectory { (parent) async throws in
      await #expect {
        try await EmbeddedPostgres.start(.init(settings: ["no_such_setting": "1"], directory: parent))
      } throws: {
        "\($0)".contains("unrecognized configuration parameter \"no_such_setting\"")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: parent.path) == [])
    }
  }

  @Test(arguments: ["", "a b", "x\ny", "port'", "ä"])
  func settingNameIsChecked(name: String) {
    let configuration = ServerConfiguration(
      port: 1,
      directory: URL(fileURLWithPath: "/tmp"),
      tls: false,
      fsync: true,
      settings: [name: "1"]
    )
    #expect(throws: EmbeddedPostgresError.self) { try configuration.text() }
  }

  @Test func missingBinariesTellTheRemedy() async throws {
    await #expect {
      try await EmbeddedPostgres.start(.init(binaries: "/nowhere"))
    } throws: {
      "\($0)".contains("apt-get install postgresql") && "\($0)".contains("/nowhere")
    }
  }

  @Test func emptyEnvironmentVariableIsNoChoice() async throws {
    try await withTemporaryDirectory { (directory) async throws in
      let tools = ToolRunner(directory: directory, user: nil)
      let environment = ["MARTLET_PG_BIN": "", "PATH": ProcessInfo.processInfo.environment["PATH"] ?? ""]
      let found = try await PostgresBinaries.locate(explicit: nil, environment: environment, tools: tools)
      #expect(FileManager.default.isExecutableFile(atPath: found.initdb))
    }
  }

  @Test func longDirectoryIsRefused() async throws {
    let long = URL(fileURLWithPath: "/tmp/" + String(repeating: "x", count: 90))
    await #expect {
      try await EmbeddedPostgres.start(.init(directory: long))
    } throws: {
      "\($0)".contains("107 bytes")
    }
  }

  @Test func takenPortIsNotFreeAndTellsItself() async throws {
    try await withEmbeddedPostgres { (server) async throws in
      #expect(!FreePort.isFree(server.port))
      try await server.halt()
      #expect(FreePort.isFree(server.port))
      try await withEmbeddedPostgres { (other) async throws in
        // Made to collide: the halted server's configuration now names the other's port.
        let file = server.dataDirectory.appendingPathComponent("martlet.conf")
        let text = try String(contentsOf: file, encoding: .utf8)
        let taken = text.replacing("port = '\(server.port)'", with: "port = '\(other.port)'")
        try Data(taken.utf8).write(to: file)
        await #expect {
          try await server.resume()
        } throws: {
          "\($0)".contains("is taken by another process")
        }
        #expect(server.pid == nil)
      }
    }
  }

  @Test func versionIsReadFromDebiansWording() {
    #expect(PostgresBinaries.version(fromOutput: "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n") == "15.18")
    #expect(PostgresBinaries.version(fromOutput: "postgres (PostgreSQL) 18beta1\n") == "18beta1")
  }
}
