/* streamext--1.0--1.1.sql: what is new since 1.0. CREATE EXTENSION runs streamext--1.0.sql and then this one. */
\echo Use "ALTER EXTENSION streamext UPDATE TO '1.1'" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;
