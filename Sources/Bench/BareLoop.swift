import CLibCurl
import Foundation

/// The floor: what libcurl's multi interface does when nothing but it is in the way. One thread, the same receiver, the
/// same bodies, headers of the same size; no database, no signing, no outcome.
struct BareLoop: Sendable {
  var url: String
  var bodies: [[UInt8]]
  var userAgent: String
  var concurrency: Int
  var requests: Int

  struct Result: Sendable {
    var seconds: Double
    var cpuSeconds: Double
  }

  /// On a thread of its own, since it blocks.
  func run() async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread { continuation.resume(with: Swift.Result { try loop() }) }
    }
  }

  private static let headers = [
    "Expect:",
    "Content-Type: application/json",
    "webhook-id: 01939999-7c00-7a00-8abc-012345678901",
    "webhook-timestamp: 1731705121",
    "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  ]

  private func loop() throws -> Result {
    guard let multi = curl_multi_init() else { throw BenchError("libcurl has no memory for a multi handle") }
    curl_shim_multi_set_long(multi, CURLMOPT_MAXCONNECTS, 5000)
    var list: UnsafeMutablePointer<curl_slist>?
    for header in Self.headers { list = curl_slist_append(list, header) }
    // One block for all bodies: libcurl reads them where they lie.
    let offsets = bodies.reduce(into: [0]) { $0.append($0[$0.count - 1] + $1.count) }
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: offsets[bodies.count], alignment: 1)
    for (body, offset) in zip(bodies, offsets) {
      UnsafeMutableRawBufferPointer(rebasing: block[offset...]).copyBytes(from: body)
    }
    var handles: [UnsafeMutableRawPointer] = []
    defer {
      for easy in handles {
        curl_multi_remove_handle(multi, easy)
        curl_easy_cleanup(easy)
      }
      curl_multi_cleanup(multi)
      curl_slist_free_all(list)
      block.deallocate()
    }

    let (began, cpuBegan) = (monotonicNanoseconds(), threadNanoseconds())
    var started = 0
    func start(_ easy: UnsafeMutableRawPointer) {
      let body = started % bodies.count
      curl_shim_set_pointer(easy, CURLOPT_POSTFIELDS, block.baseAddress! + offsets[body])
      curl_shim_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(bodies[body].count))
      curl_multi_add_handle(multi, easy)
      started += 1
    }
    for _ in 0..<min(concurrency, requests) {
      guard let easy = handle(list) else { throw BenchError("libcurl has no memory for a handle") }
      handles.append(easy)
      start(easy)
    }
    var finished = 0
    while finished < requests {
      var running: Int32 = 0
      curl_multi_perform(multi, &running)
      var again = false
      var remaining: Int32 = 0
      while let message = curl_multi_info_read(multi, &remaining) {
        guard let easy = message.pointee.easy_handle else { continue }
        var status = 0
        curl_shim_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
        guard message.pointee.data.result == CURLE_OK, status / 100 == 2 else {
          throw BenchError("the bare loop failed: status \(status), libcurl \(message.pointee.data.result.rawValue)")
        }
        finished += 1
        curl_multi_remove_handle(multi, easy)
        if started < requests {
          start(easy)
          again = true
        }
      }
      if !again, finished < requests { curl_multi_poll(multi, nil, 0, 1000, nil) }
    }
    return Result(
      seconds: Double(monotonicNanoseconds() - began) / 1e9,
      cpuSeconds: Double(threadNanoseconds() - cpuBegan) / 1e9
    )
  }

  private func handle(_ headers: UnsafeMutablePointer<curl_slist>?) -> UnsafeMutableRawPointer? {
    guard let easy = curl_easy_init() else { return nil }
    let discard: curl_write_callback = { _, size, count, _ in size * count }
    curl_shim_set_string(easy, CURLOPT_URL, url)
    curl_shim_set_string(easy, CURLOPT_USERAGENT, userAgent)
    curl_shim_set_string(easy, CURLOPT_PROXY, "")
    curl_shim_set_long(easy, CURLOPT_POST, 1)
    curl_shim_set_long(easy, CURLOPT_NOSIGNAL, 1)
    curl_shim_set_long(easy, CURLOPT_TIMEOUT_MS, 15_000)
    curl_shim_set_pointer(easy, CURLOPT_HTTPHEADER, headers)
    curl_shim_set_write_callback(easy, CURLOPT_WRITEFUNCTION, discard)
    return easy
  }
}
