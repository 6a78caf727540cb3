import EmbeddedPostgres
import Foundation

/// A receiver that costs as little as any: nginx, one worker process, which answers 204 and logs nothing.
struct Nginx {
  let process: ChildProcess
  let version: String
  let url: String

  static func start(in directory: URL, launcher: ChildLauncher) async throws -> Nginx {
    let binary = try locate()
    let port = try FreePort.find()
    let file = directory.appendingPathComponent("nginx.conf")
    try Data(configuration(port: port, directory: directory.path).utf8).write(to: file)
    let process = try await launcher.launch([binary, "-p", directory.path, "-c", file.path], log: "nginx.log")
    let deadline = ContinuousClock.now + .seconds(10)
    while !answers(port) {
      guard process.exitStatus() == nil, ContinuousClock.now < deadline else {
        throw BenchError("nginx does not start: \(await launcher.output("nginx.log"))")
      }
      try await Task.sleep(for: .milliseconds(5))
    }
    return Nginx(process: process, version: version(binary), url: "http://127.0.0.1:\(port)/hook")
  }

  func stop() async throws {
    process.signal(SIGTERM)
    if try await process.waitForExit(within: .seconds(10)) == nil { process.signal(SIGKILL) }
  }

  var cpuSeconds: Double { ProcessUsage.treeSeconds(of: process.pid) }

  private static func configuration(port: UInt16, directory: String) -> String {
    """
    daemon off;
    worker_processes 1;
    pid \(directory)/nginx.pid;
    error_log stderr error;
    events { worker_connections 8192; }
    http {
      access_log off;
      keepalive_requests 1000000000;
      keepalive_timeout 1h;
      client_max_body_size 0;
      client_body_temp_path \(directory)/body;
      proxy_temp_path \(directory)/proxy;
      fastcgi_temp_path \(directory)/fastcgi;
      uwsgi_temp_path \(directory)/uwsgi;
      scgi_temp_path \(directory)/scgi;
      server {
        listen 127.0.0.1:\(port) backlog=4096;
        location / { return 204; }
      }
    }

    """
  }

  private static func locate() throws -> String {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    let directories = path.split(separator: ":").map(String.init) + ["/usr/sbin", "/usr/local/sbin"]
    guard let found = directories.map({ $0 + "/nginx" }).first(where: FileManager.default.isExecutableFile) else {
      throw BenchError("nginx is missing; scripts/bench installs it (package nginx-light)")
    }
    return found
  }

  private static func version(_ binary: String) -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: binary)
    process.arguments = ["-v"]
    let pipe = Pipe()
    process.standardError = pipe
    guard (try? process.run()) != nil else { return "nginx" }
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return text.split(whereSeparator: { $0 == " " || $0 == "\n" }).first { $0.hasPrefix("nginx/") }.map(String.init)
      ?? "nginx"
  }

  private static func answers(_ port: UInt16) -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    defer { close(descriptor) }
    return withLoopback(port) { connect(descriptor, $0, $1) } == 0
  }
}
