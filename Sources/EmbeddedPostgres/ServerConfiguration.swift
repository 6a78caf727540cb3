import Foundation

/// What we put into the server's configuration files.
struct ServerConfiguration {
  var port: UInt16
  var directory: URL
  var tls: Bool
  var fsync: Bool
  var settings: [String: String]

  /// With TLS asked for, a connection over TCP without it is refused, so that a test cannot pass by accident.
  static let accessWithTLSOnly = """
    local   all          all                trust
    local   replication  all                trust
    hostssl all          all  127.0.0.1/32  trust
    hostssl replication  all  127.0.0.1/32  trust

    """

  func text() throws -> String {
    var values = [
      "port": "\(port)",
      "listen_addresses": "127.0.0.1",
      "unix_socket_directories": directory.path,
      "unix_socket_permissions": "0700",
      "fsync": fsync ? "on" : "off",
      // Its segments are files in the data directory and go away with it, even after SIGKILL.
      "dynamic_shared_memory_type": "mmap",
    ]
    if tls {
      values["ssl"] = "on"
      values["ssl_cert_file"] = directory.appendingPathComponent("server.pem").path
      values["ssl_key_file"] = directory.appendingPathComponent("server.key").path
    } else {
      values["ssl"] = "off"
    }
    for (name, value) in settings {
      guard Self.isName(name) else { throw EmbeddedPostgresError.invalidSetting(name) }
      values[name.lowercased()] = value
    }
    return values.sorted { $0.key < $1.key }.map { "\($0.key) = \(Self.quote($0.value))\n" }.joined()
  }

  private static func isName(_ name: String) -> Bool {
    name.first.map { $0.isLetter || $0 == "_" } == true
      && name.utf8.allSatisfy { byte in
        switch UInt8(byte) {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."):
          true
        default: false
        }
      }
  }

  /// The file's own rules: quotes are doubled, backslashes start an escape, a value ends with its line.
  static func quote(_ value: String) -> String {
    let escaped = value.replacing("\\", with: "\\\\").replacing("'", with: "''").replacing("\n", with: "\\n")
    return "'\(escaped)'"
  }
}
