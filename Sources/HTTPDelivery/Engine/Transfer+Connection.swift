import CLibCurl
import Glibc

/// What may be asked of the connection while libcurl works on a transfer, from within its callbacks.
extension Transfer {
  /// True if the peers have agreed on HTTP/2 when they set up TLS. What a status line says proves nothing.
  var speaksHTTP2: Bool { session.map(OpenSSL.speaksHTTP2) ?? false }

  /// The connection stands. False if it is a kept-alive one on which something has come in that nobody asked for.
  ///
  /// libcurl drops bytes beyond the end of a response only as far as it happens to have read them. The rest would be the
  /// beginning of the answer to the next request, which could then count as delivered though no one has seen it. Over
  /// HTTP/2 answers carry the number of their request, and much else comes in unasked.
  func takeConnection(_ ends: SocketTable.Ends) -> Bool {
    if long(CURLINFO_NUM_CONNECTS) > 0 {
      sockets.insert(dialling.descriptors, ends)
      dialling.connected = sockets.descriptor(ends)
      return true
    }
    dialling.connected = sockets.descriptor(ends)
    if let session {
      if OpenSSL.speaksHTTP2(session) { return true }
      if OpenSSL.pendingBytes(session) > 0 { return false }
    }
    guard let descriptor = dialling.connected else { return false }
    var byte: UInt8 = 0
    // Zero is the end of the connection: no use either.
    return recv(descriptor, &byte, 1, Int32(MSG_PEEK | MSG_DONTWAIT)) < 0
  }

  /// Bytes the connection has received since it was made, whatever they were.
  var receivedBytes: UInt64? {
    guard let descriptor = dialling.connected else { return nil }
    // struct tcp_info, of which Glibc knows the beginning only; tcpi_bytes_received, since Linux 4.1.
    let offset = 128
    return withUnsafeTemporaryAllocation(byteCount: 256, alignment: 8) { info in
      var count = socklen_t(info.count)
      guard let start = info.baseAddress, getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, start, &count) == 0,
        Int(count) >= offset + 8
      else { return nil }
      return start.load(fromByteOffset: offset, as: UInt64.self)
    }
  }

  /// OpenSSL's object; nil without TLS.
  private var session: OpaquePointer? {
    var pointer: UnsafeMutableRawPointer?
    guard origin?.isSecure == true, curl_shim_get_pointer(easy, CURLINFO_TLS_SSL_PTR, &pointer) == CURLE_OK, let pointer
    else { return nil }
    let information = pointer.load(as: curl_tlssessioninfo.self)
    guard information.backend == CURLSSLBACKEND_OPENSSL else { return nil }
    return information.internals.map { OpaquePointer($0) }
  }
}
