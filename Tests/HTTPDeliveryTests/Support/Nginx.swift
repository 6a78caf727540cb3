import Foundation

@testable import HTTPDelivery

/// A real server for TLS and HTTP/2.
enum Nginx {
  static let executable = ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].first {
    FileManager.default.isExecutableFile(atPath: $0)
  }
  static let isInstalled = executable != nil

  struct Server: Sendable {
    let port: Int
    let plainPort: Int
    /// The private authority that signed the certificates worth trusting.
    let caFile: String
    let certificates: Certificates

    func url(host: String = "localhost") -> String { "https://\(host):\(port)/hook" }
  }

  /// Runs nginx with one certificate.
  /// - Parameters:
  ///   - listen: what follows the port in the `listen` directive.
  ///   - location: directives of the TLS server; `$plain` in it stands for the address of a plain server beside it.
  ///   - report: what the plain server says of an exchange when asked for anything but `/ok`.
  ///   - extra: further directives of the TLS server; `$ca` in it stands for the file of the authority.
  static func with<Result>(
    _ certificate: Certificates.Kind,
    listen: String = "ssl http2",
    location: String = "proxy_pass http://$plain/ok;",
    server extra: String = "",
    reporting report: String = "$server_protocol $connection $connection_requests",
    _ body: (Server) async throws -> Result
  ) async throws -> Result {
    guard let executable else { throw ProcessError(command: "nginx", output: "not installed") }
    let directory = try temporaryDirectory()
    defer { try? FileManager.default.removeItem(at: directory) }
    let certificates = try await Certificates(in: directory)
    let (certificateFile, keyFile) = try await certificates.make(certificate)
    let (port, plainPort) = (ScriptedServer.freePort(), ScriptedServer.freePort())
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map { "\($0)_temp_path \(directory.path)/\($0);" }.joined(separator: " ")
    let configuration = """
      daemon off; master_process off; pid \(directory.path)/pid; error_log \(directory.path)/error.log;
      events { worker_connections 512; }
      http {
        access_log off; \(paths)
        server {
          listen 127.0.0.1:\(plainPort);
          location / { return 500 "$http_x_forwarded_proto"; }
          location /ok { return 200; }
        }
        server {
          listen 127.0.0.1:\(port) \(listen);
          ssl_certificate \(certificateFile); ssl_certificate_key \(keyFile);
          \(extra.replacingOccurrences(of: "$ca", with: certificates.authorityFile))
          location / {
            proxy_set_header X-Forwarded-Proto "\(report)";
            \(location.replacingOccurrences(of: "$plain", with: "127.0.0.1:\(plainPort)"))
          }
        }
      }
      """
    let file = directory.appendingPathComponent("nginx.conf")
    try configuration.write(to: file, atomically: true, encoding: .utf8)
    let process = try ChildProcess(
      [executable, "-p", directory.path, "-c", file.path, "-e", directory.path + "/error.log"],
      log: directory.appendingPathComponent("output")
    )
    do {
      try await waitUntilListening(on: plainPort, process, log: directory.path + "/error.log")
      let result = try await body(
        Server(
          port: port,
          plainPort: plainPort,
          caFile: certificates.authorityFile,
          certificates: certificates
        )
      )
      await process.stop()
      return result
    } catch {
      await process.stop()
      throw error
    }
  }

  /// Both ports open together, before nginx accepts anything.
  private static func waitUntilListening(on port: Int, _ process: ChildProcess, log: String) async throws {
    let deadline = ContinuousClock.now + .seconds(20)
    try await withClient { client in
      while await client.post("http://127.0.0.1:\(port)/ok").failure != nil {
        guard process.isRunning, ContinuousClock.now < deadline else {
          throw ProcessError(command: "nginx", output: (try? String(contentsOfFile: log, encoding: .utf8)) ?? "")
        }
        try await Task.sleep(for: .milliseconds(10))
      }
    }
  }
}
