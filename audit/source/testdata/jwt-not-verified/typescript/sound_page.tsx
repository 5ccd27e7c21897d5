import React from 'react';
import { jwtDecode } from 'jwt-decode';

// In the browser a token is only shown; the service verifies it.
export function Greeting({ token }: { token: string }) {
  const { name } = jwtDecode<{ name: string }>(token);
  return (
    <p className="hi">
      Hello {name}, don't share this / that page <br />
      <a href="/me">it's yours</a>
    </p>
  );
}
