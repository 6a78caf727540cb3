import EmbeddedPostgres
import Foundation
import TestSupport

/// nginx that takes nobody without a certificate of its authority.
struct MutualTLSServer: Sendable {
  let port: UInt16
  let caFile: String
  let clientCertificate: String
  let clientKey: String
  /// Does not belong to the certificate.
  let otherKey: String
  private let log: String

  private static let nginx = "/usr/sbin/nginx"
  private static let openssl = "/usr/bin/openssl"
  static let isInstalled = [nginx, openssl].allSatisfy { FileManager.default.isExecutableFile(atPath: $0) }

  func url(_ path: String) -> String { "https://127.0.0.1:\(port)\(path)" }

  /// Path and name in the client's certificate of each request, sorted.
  func accessLog() throws -> [String] {
    try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").map(String.init).sorted()
  }

  static func with(_ body: (MutualTLSServer) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    func path(_ name: String) -> String { folder.appendingPathComponent(name).path }
    func read(_ name: String) throws -> String { try String(contentsOfFile: path(name), encoding: .utf8) }
    func key(_ name: String) -> [String] {
      ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path(name)]
    }
    try await run(["req", "-x509", "-subj", "/CN=CA", "-days", "2", "-out", path("ca.pem")] + key("ca.key"))
    try "subjectAltName=IP:127.0.0.1".write(toFile: path("ext"), atomically: true, encoding: .utf8)
    for (name, subject) in [("server", "/CN=127.0.0.1"), ("client", "/CN=martlet client"), ("other", "/CN=other")] {
      try await run(["req", "-new", "-subj", subject, "-out", path("\(name).csr")] + key("\(name).key"))
      try await run([
        "x509", "-req", "-in", path("\(name).csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial",
        "-days", "2", "-extfile", path("ext"), "-out", path("\(name).pem"),
      ])
    }
    let port = try FreePort.find()
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "\($0)_temp_path \(path($0));" }
      .joined(separator: " ")
    try """
    daemon off; master_process off; pid \(path("pid")); error_log \(path("error.log"));
    events { worker_connections 64; }
    http {
      \(temporary)
      log_format who '$uri $ssl_client_s_dn';
      access_log \(path("access.log")) who;
      server {
        listen 127.0.0.1:\(port) ssl;
        ssl_certificate \(path("server.pem")); ssl_certificate_key \(path("server.key"));
        ssl_client_certificate \(path("ca.pem")); ssl_verify_client on;
        location / { return 200; }
      }
    }
    """.write(toFile: path("nginx.conf"), atomically: true, encoding: .utf8)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: nginx)
    process.arguments = ["-p", folder.path, "-c", path("nginx.conf"), "-e", path("error.log")]
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    // Swift's threads block signals and a child inherits that, so it would not hear of a SIGTERM.
    defer { kill(process.processIdentifier, SIGKILL) }
    // It writes its pid when it listens.
    try await eventually("nginx listens") { FileManager.default.fileExists(atPath: path("pid")) }
    try await body(
      MutualTLSServer(
        port: port,
        caFile: path("ca.pem"),
        clientCertificate: try read("client.pem"),
        clientKey: try read("client.key"),
        otherKey: try read("other.key"),
        log: path("access.log")
      )
    )
  }

  private static func run(_ arguments: [String]) async throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: openssl)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    let status = try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Int32, any Error>) in
      process.terminationHandler = { continuation.resume(returning: $0.terminationStatus) }
      do {
        try process.run()
      } catch {
        continuation.resume(throwing: error)
      }
    }
    guard status == 0 else { throw OpenSSLError(arguments: arguments) }
  }

  private struct OpenSSLError: Error { var arguments: [String] }
}
